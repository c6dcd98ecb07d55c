"""The effects of each candidate on the model: the three scores of arXiv 2406.11717."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.refusal_metric import refusal_metric
from weight_edit.evaluation.kl import kl_divergence
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.hooks import Hook, addition_hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs
from weight_edit.utils.progress import Bar, bar

AblationHooks = Callable[[Tensor], list[Hook]]


@dataclass(frozen=True, kw_only=True)
class CandidateScore:
    """The scores of one candidate.

    Attributes:
        position, layer: where it was found: position counted from a prompt's end, input of the layer.
        bypass: mean refusal metric on target prompts with the directions ablated; low is good. None without refusal
            tokens.
        induce: mean refusal metric on baseline prompts with the difference added at the input of its layer. None
            where there is nothing to add, or no layer to add it at.
        kl: mean KL(base || ablated) of the next token on baseline prompts, in nats.
        norm: length of the difference.
        rank: number of directions.
        accuracy: of the finder's first classifier on held-out prompts; None where it has none.
        cosmic: similarity score of arXiv 2506.00085, high is good; None where it was not asked for.
        cosmic_ablated, cosmic_added: its two parts, cosines of activations with the directions ablated and added.
        protected_kl: as `kl`, on protected prompts; None where there are none.
        values: of `bypass`, `induce`, `kl` and `protected_kl`, by name, the values that they are the means of, prompt
            by prompt.

    A candidate of length zero has no direction, and NaN for its scores.
    """

    position: int | None
    layer: int | None
    bypass: float | None
    induce: float | None
    kl: float
    norm: float
    rank: int = 1
    accuracy: float | None = None
    cosmic: float | None = None
    protected_kl: float | None = None
    cosmic_ablated: float | None = None
    cosmic_added: float | None = None
    values: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those of single prompts; NaN as None."""
        values = asdict(self)
        del values["values"]
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def score_candidates(
    model: Model,
    candidates: Sequence[Candidate],
    target: Sequence[Sequence[int]],
    baseline: Sequence[Sequence[int]],
    tokens: Collection[int],
    ablation_hooks: AblationHooks,
    *,
    protected: Sequence[Sequence[int]] = (),
    batch_size: int = 32,
    layers: int | None = None,
    what: str = "candidates",
    known: Mapping[int, CandidateScore] | None = None,
    done: Callable[[int, CandidateScore], None] | None = None,
) -> list[CandidateScore]:
    """Measure every candidate on validation prompts.

    Args:
        target, baseline: token ids of validation prompts.
        tokens: ids of the refusal tokens; none leaves out the two scores that need them.
        ablation_hooks: gives the hooks that ablate the span of rows (k, d_model) from the whole stream.
        protected: token ids of validation prompts that an edit should leave alone.
        layers: how many of the model's, from the first, may be chosen: candidates of others are not scored.
        what: names the bar.
        known: scores of an earlier attempt by the candidate's number: they are not measured again.
        done: is given every other candidate's number and scores as soon as they are measured.

    Raises:
        UsageError: a prompt is empty or too long, memory runs out with a single one, or the unedited model gives no
            numbers.
    """

    earlier = {} if known is None else dict(known)

    def logprobs(prompts: Sequence[Sequence[int]], hooks: list[Hook], within: Bar | None = None) -> Tensor:
        with hooked(model.model, hooks):
            return next_token_logprobs(model, prompts, batch_size=batch_size, description=None, within=within)

    below = model.anatomy.n_layers if layers is None else layers
    asked = [n for n, candidate in enumerate(candidates) if worth_scoring(candidate, below) and n not in earlier]
    passes = len(target) * bool(tokens) + len(baseline) * (2 if tokens else 1) + len(protected)
    counted = len(asked) + len(earlier)
    with bar(what, counted, done=len(earlier)) if asked else nullcontext() as progress:
        # Counted with the first of the candidates: before it, nothing is known of the rate.
        plain = spared = torch.empty(0)
        if asked:
            plain, spared = logprobs(baseline, []), logprobs(protected, [])
            for prompts, unedited in ((baseline, plain), (protected, spared)):
                check_logprobs(model, prompts, unedited)
        for number in asked:
            candidate = candidates[number]
            assert progress is not None
            part = _Rest(progress, passes)
            ablated = ablation_hooks(candidate.rows)
            each: dict[str, Tensor] = {}
            if tokens:
                each["bypass"] = refusal_metric(logprobs(target, ablated, part), tokens)
            if tokens and candidate.layer is not None and candidate.vector is not None:
                added = [addition_hook(model, candidate.layer, candidate.vector.float())]
                each["induce"] = refusal_metric(logprobs(baseline, added, part), tokens)
            each["kl"] = kl_divergence(plain, logprobs(baseline, ablated, part))
            if protected:
                each["protected_kl"] = kl_divergence(spared, logprobs(protected, ablated, part))
            means = {name: float(some.mean()) for name, some in each.items()}
            score = CandidateScore(
                position=candidate.position,
                layer=candidate.layer,
                bypass=means.get("bypass"),
                induce=means.get("induce"),
                kl=means["kl"],
                norm=candidate.norm,
                rank=candidate.rank,
                accuracy=candidate.facts.get("accuracy"),
                protected_kl=means.get("protected_kl"),
                values={name: tuple(some.tolist()) for name, some in each.items()},
            )
            earlier[number] = score
            if done is not None:
                done(number, score)
            part.complete()
    return [earlier.get(number) or unscored(candidate) for number, candidate in enumerate(candidates)]


@dataclass(frozen=True)
class Similarity:
    """The two cosines of COSMIC (arXiv 2506.00085), NaN for a candidate without scores.

    Attributes:
        ablated: of target activations with the directions ablated, with the baseline's.
        added: of baseline activations with the difference added, with the target's.
    """

    ablated: float = math.nan
    added: float = math.nan

    @property
    def total(self) -> float:
        """The score: their sum."""
        return self.ablated + self.added


def with_similarity(score: CandidateScore, similarity: Similarity | None) -> CandidateScore:
    """The scores with a similarity beside them; None leaves them as they are."""
    if similarity is None:
        return score
    return replace(score, cosmic=similarity.total, cosmic_ablated=similarity.ablated, cosmic_added=similarity.added)


def with_more(score: CandidateScore, more: Mapping[str, tuple[float, ...]]) -> CandidateScore:
    """The scores over the values of further prompts, too, which stand behind those there are."""
    values = {name: (*some, *more.get(name, ())) for name, some in score.values.items()}
    means = {name: math.fsum(some) / len(some) if _finite(some) else math.nan for name, some in values.items() if some}
    return replace(score, values=values, **means)  # type: ignore[arg-type]


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


class _Rest:
    """A progress bar's view of one candidate: its prompts add up to one unit of the whole bar."""

    def __init__(self, whole: Bar, units: int) -> None:
        self._whole, self._units, self._told = whole, units, 0.0

    def advance(self, n: float = 1) -> None:
        """Move on by n prompts."""
        self._told += n / self._units
        self._whole.advance(n / self._units)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        self._whole.say(line)

    def complete(self) -> None:
        """Complete the candidate's unit."""
        self._whole.advance(1 - self._told)


def worth_scoring(candidate: Candidate, layers: int) -> bool:
    """Whether a candidate has a direction, and a layer that may be chosen."""
    return candidate.norm > 0.0 and (candidate.layer is None or candidate.layer < layers)


def unscored(candidate: Candidate) -> CandidateScore:
    """A candidate's entry without scores: its layer may not be chosen, or its length is zero."""
    accuracy = candidate.facts.get("accuracy")
    return CandidateScore(
        position=candidate.position,
        layer=candidate.layer,
        bypass=math.nan,
        induce=math.nan,
        kl=math.nan,
        norm=candidate.norm,
        rank=candidate.rank,
        accuracy=accuracy,
    )
