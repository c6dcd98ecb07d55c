"""The selection rule: a pure function of the table of scores.

See arXiv 2406.11717, 2606.13720 and 2506.00085.
"""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import TYPE_CHECKING

from weight_edit.errors import UsageError
from weight_edit.utils.names import check_known
from weight_edit.utils.renamed import renamed_fields

if TYPE_CHECKING:
    from weight_edit.directions.scores import CandidateScore

BY = ("bypass", "accuracy", "cosmic", "cosmic-released")
"""The criteria for the best candidate: "bypass", "accuracy", "cosmic" or "cosmic-released".

The lowest bypass score (arXiv 2406.11717); the most accurate first classifier, then the lowest bypass score (INLP,
arXiv 2606.13720); or the highest similarity score (COSMIC, arXiv 2506.00085), which needs no refusal tokens: ours
of the paper, or as the authors' code computes it.
"""

RELEASED = "cosmic-released"


@renamed_fields(by="select")
@dataclass(frozen=True)
class SelectionRule:
    """The bounds a candidate must keep; None lifts one. The defaults are those of arXiv 2406.11717.

    Attributes:
        max_kl: largest KL divergence on baseline prompts under ablation, in nats.
        min_induce: smallest refusal metric on baseline prompts when the difference is added.
        max_layer_fraction: layers from `int(fraction * n_layers)` on are out.
        select: one of `BY`; the finder's own when None.
        max_protected_kl: as `max_kl`, on protected prompts, where there are any.
    """

    max_kl: float | None = 0.1
    min_induce: float | None = 0.0
    max_layer_fraction: float | None = 0.8
    select: str | None = None
    max_protected_kl: float | None = 0.1

    def __post_init__(self) -> None:
        if self.min_induce is not None and not math.isfinite(self.min_induce):
            raise UsageError(f"min_induce is {self.min_induce}; it must be a number")
        for name, bound in (("max_kl", self.max_kl), ("max_protected_kl", self.max_protected_kl)):
            if bound is not None and not bound > 0:
                raise UsageError(f"{name} is {bound}; it must be above 0")
        if self.select is not None:
            check_known("rule of choice", self.select, BY)
        if self.max_layer_fraction is not None and not 0 < self.max_layer_fraction <= 1:
            raise UsageError(f"max_layer_fraction is {self.max_layer_fraction}; it must be above 0 and at most 1")

    @property
    def without_tokens(self) -> bool:
        """Whether the choice is by similarities, which need no refusal tokens."""
        return self.select in ("cosmic", RELEASED)

    def layers(self, n_layers: int) -> int:
        """The number of leading layers that may be chosen: rounded down, as in the published code."""
        if self.max_layer_fraction is None:
            return n_layers
        # .29 * 100 is 28.999999999999996 in binary.
        return int(n_layers * self.max_layer_fraction + 1e-9)


NOT_FINITE = "a score is not finite"
"""The rejection of a candidate under whose edit the model's outputs are NaN or infinite."""

STAGES = ("place", "induce", "kl", "bypass", "similarity")
"""What candidates are rejected by, in the order in which it is measured.

First comes where they are and whether they have a direction at all, without a pass; see `stages`.
"""

Place = tuple[int | None, int | None]


@dataclass(frozen=True)
class Failure:
    """A bound that a candidate misses.

    Attributes:
        bound: which, in words that do not depend on the candidate, e.g. "KL above 0.1".
        text: the same with the candidate's figure.
        excess: by how much, comparable between bounds: KL relative to its bound, induce in nats, layers as a
            share of the model; infinite where the candidate has no scores.
        stage: where that is told, one of `STAGES`.
    """

    bound: str
    text: str
    excess: float
    stage: str


@dataclass(frozen=True)
class Selection:
    """The result of a selection.

    Attributes:
        chosen: the candidate, or None where none passes.
        rejections: (position, layer) of every candidate that misses a bound, and the reason.
        counts: how many candidates miss each bound; one may miss several.
        stages: of every candidate that misses a bound, the first of `STAGES` at which it does.
    """

    chosen: "CandidateScore | None"
    rejections: dict[Place, str]
    counts: dict[str, int]
    stages: dict[Place, str]


def select(
    scores: "Sequence[CandidateScore]", rule: SelectionRule, n_layers: int, among: Collection[int] = ()
) -> Selection:
    """The best of the candidates that keep all bounds, by what `rule.select` says, the lowest bypass score if nothing.

    Equal ones are taken in the order of the table.

    Args:
        among: numbers of candidates that were measured on more prompts: where any of them keeps the bounds, one of them
            is chosen, since a mean over fewer prompts may be the best by chance.
    """
    passing = ranked(scores, rule, n_layers, among)
    missed = all_failures(scores, rule, n_layers)
    return Selection(
        chosen=scores[passing[0]] if passing else None,
        rejections={place: "; ".join(f.text for f in found) for place, found in missed.items() if found},
        counts=dict(Counter(failure.bound for found in missed.values() for failure in found)),
        stages={
            place: min((failure.stage for failure in found), key=STAGES.index)
            for place, found in missed.items()
            if found
        },
    )


def ranked(
    scores: "Sequence[CandidateScore]", rule: SelectionRule, n_layers: int, among: Collection[int] = ()
) -> list[int]:
    """The numbers of the candidates that keep all bounds, the best first; those of `among` before the others."""
    missed = all_failures(scores, rule, n_layers)
    passing = [n for n, score in enumerate(scores) if not missed[score.position, score.layer]]
    return sorted(passing, key=lambda n: (n not in among, merit(scores[n], rule.select)))


def least_bad(scores: "Sequence[CandidateScore]", rule: SelectionRule, n_layers: int) -> "CandidateScore | None":
    """For when none passes: the first of `nearest`; None where no candidate has scores at all."""
    found = nearest(scores, rule, n_layers)
    return scores[found[0]] if found else None


def nearest(scores: "Sequence[CandidateScore]", rule: SelectionRule, n_layers: int) -> list[int]:
    """The numbers of the candidates with scores, by the sum of their excesses over bounds, then by `rule.select`.

    What is not measured counts as kept.
    """
    over = excesses(scores, rule, n_layers)
    return sorted(over, key=lambda n: (over[n], *merit(scores[n], rule.select)))


def excesses(scores: "Sequence[CandidateScore]", rule: SelectionRule, n_layers: int) -> dict[int, float]:
    """By number of each candidate with scores, the sum of its excesses over bounds, as far as it is measured."""
    missed = all_failures(scores, rule, n_layers)
    return {
        n: sum(failure.excess for failure in missed[score.position, score.layer])
        for n, score in enumerate(scores)
        if _unusable(score) is None
    }


def merit(score: "CandidateScore", by: str | None) -> tuple[float, ...]:
    """The sort key of candidates, best first."""
    bypass = 0.0 if score.bypass is None else score.bypass
    if by == "accuracy":
        return (-(score.accuracy or 0.0), bypass)
    if by in ("cosmic", RELEASED):
        return (math.inf if score.cosmic is None else -score.cosmic, bypass)
    return (bypass,)


def all_failures(
    scores: "Sequence[CandidateScore]", rule: SelectionRule, n_layers: int
) -> dict[Place, tuple[Failure, ...]]:
    """The bounds that each candidate misses, by its place; those that need the whole table too."""
    last = last_layer(scores) if rule.select == RELEASED else None
    found = {}
    for score in scores:
        missed = failures(score, rule, n_layers)
        if last is not None and score.position == -1 and score.layer is not None and score.layer > last:
            bound = f"last position: layer above {last}, the peak of other positions"
            excess = (score.layer - last) / n_layers
            text = f"layer {score.layer} above {last}, the peak of other positions"
            missed += (Failure(bound, text, excess, "similarity"),)
        found[score.position, score.layer] = missed
    return found


def last_layer(scores: "Sequence[CandidateScore]") -> int | None:
    """The last layer that the released code of COSMIC takes at the last position; None for no limit.

    At every other position each of the two similarities is highest at some layer; the limit is the larger of the two
    medians of these layers, of an even number the lower middle one. It is taken among scored layers.
    """
    medians = []
    for name in ("cosmic_ablated", "cosmic_added"):
        peaks: dict[int, tuple[float, int]] = {}
        for score in scores:
            value = getattr(score, name)
            if value is None or math.isnan(value) or score.layer is None or score.position in (None, -1):
                continue
            best = peaks.get(score.position)
            if best is None or value > best[0]:
                peaks[score.position] = value, score.layer
        if not peaks:
            return None
        medians.append(median_low(layer for _, layer in peaks.values()))
    return max(medians)


def failures(score: "CandidateScore", rule: SelectionRule, n_layers: int) -> tuple[Failure, ...]:
    """The bounds that a candidate misses, by what of it is measured."""
    found = []
    layers = rule.layers(n_layers)
    if score.layer is not None and score.layer >= layers:
        bound, excess = f"layer above {layers - 1}", (score.layer - layers + 1) / n_layers
        found.append(Failure(bound, f"layer {score.layer} above {layers - 1}", excess, "place"))
    unusable = _unusable(score)
    if unusable is not None:
        # Some finders do not search the layers that are out, so that the layer is the reason.
        reason, stage = unusable
        return tuple(found) or (Failure(reason, reason, math.inf, stage),)
    for what, kl, most in (
        ("KL", score.kl, rule.max_kl),
        ("KL of protected prompts", score.protected_kl, rule.max_protected_kl),
    ):
        if most is not None and kl is not None and not kl <= most:
            found.append(Failure(f"{what} above {most:g}", f"{what} {kl:.3g} above {most:g}", kl / most - 1, "kl"))
    if rule.min_induce is not None and score.induce is not None and not score.induce >= rule.min_induce:
        text = f"induce score {score.induce:.3g} below {rule.min_induce:g}"
        bound = f"induce score below {rule.min_induce:g}"
        found.append(Failure(bound, text, rule.min_induce - score.induce, "induce"))
    return tuple(found)


def _unusable(score: "CandidateScore") -> tuple[str, str] | None:
    """Why a candidate can be chosen by no bounds, and at which stage that is told; None where it can."""
    if score.norm == 0.0:
        return "zero norm", "place"
    if all(value is None for value in (score.induce, score.kl, score.bypass)):
        return "not measured", "place"
    for name, stage in (("induce", "induce"), ("kl", "kl"), ("protected_kl", "kl"), ("bypass", "bypass")):
        value = getattr(score, name)
        if value is not None and not math.isfinite(value):
            return NOT_FINITE, stage
    return None
