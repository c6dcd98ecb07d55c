"""What each candidate does to the model: the three scores of arXiv 2406.11717."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.refusal_metric import refusal_metric
from weight_edit.kl import kl_divergence
from weight_edit.overflow import check_logprobs
from weight_edit.progress import bar
from weight_edit.runtime import Hook, Model, hooked, next_token_logprobs
from weight_edit.runtime.hooks import adding

AblationHooks = Callable[[Tensor], list[Hook]]


@dataclass(frozen=True)
class CandidateScore:
    """One candidate and what was measured of it.

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
        protected_kl: as `kl`, on protected prompts; None where there are none.

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN as None."""
        values = asdict(self)
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
) -> list[CandidateScore]:
    """Measure every candidate on validation prompts.

    Args:
        target, baseline: token ids of validation prompts.
        tokens: ids of the refusal tokens; none leaves out the two scores that need them.
        ablation_hooks: gives the hooks that ablate the span of rows (k, d_model) from the whole stream.
        protected: token ids of validation prompts that an edit should leave alone.

    Raises:
        UsageError: a prompt is empty or too long, memory runs out with a single one, or the unedited model gives no
            numbers.
    """

    def logprobs(prompts: Sequence[Sequence[int]], hooks: list[Hook]) -> Tensor:
        with hooked(model.model, hooks):
            return next_token_logprobs(model, prompts, batch_size=batch_size, description=None)

    def metric(prompts: Sequence[Sequence[int]], hooks: list[Hook]) -> float:
        return float(refusal_metric(logprobs(prompts, hooks), tokens).mean())

    def divergence(prompts: Sequence[Sequence[int]], base: Tensor, hooks: list[Hook]) -> float:
        return float(kl_divergence(base, logprobs(prompts, hooks)).mean())

    plain, spared = logprobs(baseline, []), logprobs(protected, [])
    for prompts, unedited in ((baseline, plain), (protected, spared)):
        check_logprobs(model, prompts, unedited)
    scores = []
    with bar("candidates", len(candidates)) as progress:
        for candidate in candidates:
            accuracy = candidate.facts.get("accuracy")
            place = candidate.position, candidate.layer
            if candidate.norm == 0.0:
                scores.append(CandidateScore(*place, math.nan, math.nan, math.nan, 0.0, 0, accuracy))
                progress.advance()
                continue
            ablated = ablation_hooks(candidate.rows)
            bypass = metric(target, ablated) if tokens else None
            induce = None
            if tokens and candidate.layer is not None and candidate.vector is not None:
                induce = metric(baseline, [addition_hook(model, candidate.layer, candidate.vector.float())])
            kl = divergence(baseline, plain, ablated)
            other = divergence(protected, spared, ablated) if protected else None
            norm, rank = candidate.norm, candidate.rank
            scores.append(CandidateScore(*place, bypass, induce, kl, norm, rank, accuracy, protected_kl=other))
            progress.advance()
    return scores


def addition_hook(model: Model, layer: int, vector: Tensor) -> Hook:
    """Add `vector` to the stream at the input of a block, at every token."""
    return Hook(model.anatomy.blocks[layer].module, "input", adding(vector))
