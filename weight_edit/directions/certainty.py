"""How sure a choice among candidates is: intervals of their scores over prompts, and which cannot be told apart."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from weight_edit.directions.scores import SCORES, CandidateScore
from weight_edit.directions.selection import SelectionRule, all_failures, merit, select
from weight_edit.evaluation.comparisons import Comparison, family
from weight_edit.evaluation.means import mean_comparison, mean_difference

AT_ONCE = 5
"""Of candidates tied with the best, and of those with open bounds, so many at a time are measured on more prompts."""

MOST = 10
"""Candidates that are measured on more prompts, at most."""

_BOUNDED = ("kl", "protected_kl", "induce")
_DIVERGENCES = ("kl", "protected_kl")


@dataclass(frozen=True, kw_only=True)
class Tie:
    """A candidate that cannot be told from the chosen one.

    Attributes:
        number: of the candidate.
        difference: its score minus the chosen one's on the same prompts; p by Holm's rule over all that were compared.
    """

    number: int
    difference: Comparison


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How sure the choice of one candidate is.

    Attributes:
        best: its number; None where none keeps the bounds.
        compared: others that keep the bounds and have a score for each prompt; None where the choice is by one that has
            none: an accuracy, or similarities of means.
        ties: those of them that cannot be told from it, the best first.
        open_bounds: candidates that keep or miss a bound by their mean while the interval holds it, and that would be
            chosen or tied if they kept all bounds; the best first.
    """

    best: int | None
    compared: int | None
    ties: tuple[Tie, ...]
    open_bounds: tuple[int, ...]

    @property
    def contenders(self) -> tuple[int, ...]:
        """Candidates that should be measured on more prompts; none where the choice is sure."""
        if not self.ties and not self.open_bounds:
            return ()
        tied = [] if self.best is None else [self.best, *(tie.number for tie in self.ties)][:AT_ONCE]
        return tuple(dict.fromkeys([*tied, *self.open_bounds[:AT_ONCE]]))


def certainty(
    table: Sequence[CandidateScore], rule: SelectionRule, n_layers: int, among: Collection[int] = ()
) -> Certainty:
    """How sure the choice from a table of scores is.

    Intervals are those of `mean_comparison`, over validation prompts. A candidate is told from the best if the paired
    difference of their scores is, with p values corrected by Holm's rule over all that keep the bounds.

    Args:
        among: as in `select`.
    """
    missed = all_failures(table, rule, n_layers)
    best = select(table, rule, n_layers, among).chosen
    at = None if best is None else _number(table, best)
    passing = [n for n, score in enumerate(table) if not missed[score.position, score.layer] and n != at]
    by_prompt = rule.select in (None, "bypass")
    ties: list[Tie] = []
    compared = None
    if best is not None and by_prompt:
        pairs = [(n, found) for n in passing if (found := difference(best, table[n])) is not None]
        compared = len(pairs)
        corrected = family([found for _, found in pairs])
        untold = [
            Tie(number=n, difference=found) for (n, _), found in zip(pairs, corrected, strict=True) if not found.told
        ]
        ties = sorted(untold, key=lambda tie: merit(table[tie.number], rule.select))
    near = {tie.number for tie in ties}
    open_bounds = [
        n
        for n, score in enumerate(table)
        if straddled(score, rule)
        and not misses_surely(score, rule, n_layers)
        and (n in (at, *near) or best is None or _rivals(best, score, rule.select))
    ]
    open_bounds.sort(key=lambda n: merit(table[n], rule.select))
    return Certainty(best=at, compared=compared, ties=tuple(ties), open_bounds=tuple(open_bounds))


def straddled(score: CandidateScore, rule: SelectionRule) -> list[str]:
    """The bounds, by the score's name, that the interval of a candidate's score holds, so that they cannot be told."""
    return [name for name, bound in _bounds(rule).items() if bound is not None and _holds(score, name, bound)]


def misses_surely(score: CandidateScore, rule: SelectionRule, n_layers: int) -> bool:
    """Whether a candidate misses a bound for sure, by what of it is measured.

    Its layer is out, a score is no number, or an interval lies beyond a bound; more scores cannot change it.
    """
    if score.layer is not None and score.layer >= rule.layers(n_layers):
        return True
    measured = {name: value for name in SCORES if (value := getattr(score, name)) is not None}
    if not all(map(math.isfinite, measured.values())):
        return True
    return any(
        name in measured
        and bound is not None
        and _beyond(name, measured[name], bound)
        and not _holds(score, name, bound)
        for name, bound in _bounds(rule).items()
    )


def interval(score: CandidateScore, name: str) -> Comparison | None:
    """The 95% interval of one of a candidate's scores over prompts; None where there are too few, or no numbers."""
    values = score.values.get(name, ())
    if len(values) < 3 or not all(map(math.isfinite, values)):
        return None
    found = _interval(tuple(values))
    # The bootstrap's interval is symmetric, and a divergence is never negative.
    return found if name not in _DIVERGENCES else replace(found, low=max(0.0, found.low))


def difference(best: CandidateScore, other: CandidateScore) -> Comparison | None:
    """The other's bypass score minus the best one's, over the prompts that both were measured on."""
    pairs = list(zip(best.values.get("bypass", ()), other.values.get("bypass", ()), strict=False))
    if len(pairs) < 3 or not all(math.isfinite(value) for pair in pairs for value in pair):
        return None
    first, second = zip(*pairs, strict=True)
    return _difference(first, second)


def intervals(score: CandidateScore) -> dict[str, list[float]]:
    """The ends of the intervals of all scores that have one, by name, JSON values."""
    found = {name: interval(score, name) for name in SCORES}
    return {name: [each.low, each.high] for name, each in found.items() if each is not None}


def to_dict(sure: Certainty, table: Sequence[CandidateScore], measured: Collection[int], n_more: int) -> dict[str, Any]:
    """JSON values: how many were compared, ties with differences, open bounds, what was measured on more prompts."""

    def place(number: int) -> dict[str, Any]:
        return {"layer": table[number].layer, "position": table[number].position}

    return {
        "compared": sure.compared,
        "ties": [{**place(tie.number), "difference": tie.difference.to_dict()} for tie in sure.ties],
        "open_bounds": [place(number) for number in sure.open_bounds],
        "measured_on_more": [place(number) for number in sorted(measured)],
        "n_more": n_more if measured else 0,
    }


def _bounds(rule: SelectionRule) -> dict[str, float | None]:
    return {"kl": rule.max_kl, "protected_kl": rule.max_protected_kl, "induce": rule.min_induce}


def _holds(score: CandidateScore, name: str, bound: float) -> bool:
    """Whether the interval of a score holds a bound."""
    around = interval(score, name)
    return around is not None and around.low <= bound <= around.high


def _beyond(name: str, value: float, bound: float) -> bool:
    return value > bound if name in _DIVERGENCES else value < bound


def _rivals(best: CandidateScore, other: CandidateScore, by: str | None) -> bool:
    """Whether a candidate would be chosen or tied if it kept all bounds."""
    if merit(other, by) <= merit(best, by):
        return True
    found = difference(best, other) if by in (None, "bypass") else None
    return found is not None and not found.told


def _number(table: Sequence[CandidateScore], score: CandidateScore) -> int:
    return next(n for n, each in enumerate(table) if each is score)


# The bootstrap takes ten milliseconds, and rounds of measuring ask for the same intervals again.
@lru_cache(maxsize=8192)
def _interval(values: tuple[float, ...]) -> Comparison:
    return mean_comparison(values)


@lru_cache(maxsize=8192)
def _difference(first: tuple[float, ...], second: tuple[float, ...]) -> Comparison:
    return mean_difference(first, second)
