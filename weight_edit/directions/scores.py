"""What each candidate direction does to the model: the three scores of arXiv 2406.11717."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from weight_edit.directions.refusal_metric import refusal_metric
from weight_edit.kl import kl_divergence
from weight_edit.progress import bar
from weight_edit.runtime import Hook, Model, hooked, next_token_logprobs

AblationHooks = Callable[[Tensor], list[Hook]]


@dataclass(frozen=True)
class CandidateScore:
    """One candidate and what was measured of it.

    Attributes:
        position, layer: where it was found: position counted from a prompt's end, input of the layer.
        bypass: mean refusal metric on target prompts with the direction ablated; low is good.
        induce: mean refusal metric on baseline prompts with the difference added at the input of its layer.
        kl: mean KL(base || ablated) of the next token on baseline prompts, in nats.
        norm: length of the difference.

    A candidate of length zero has no direction, and NaN for its scores.
    """

    position: int
    layer: int
    bypass: float
    induce: float
    kl: float
    norm: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values; NaN as None."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def score_candidates(
    model: Model,
    candidates: Tensor,
    positions: Sequence[int],
    target: Sequence[Sequence[int]],
    baseline: Sequence[Sequence[int]],
    tokens: Collection[int],
    ablation_hooks: AblationHooks,
    *,
    batch_size: int = 32,
) -> list[CandidateScore]:
    """Measure every candidate on validation prompts, positions first, then layers.

    Args:
        candidates: unnormalised differences, (positions, layers, d_model).
        positions: which position each first index is, negative.
        target, baseline: token ids of validation prompts.
        tokens: ids of the refusal tokens.
        ablation_hooks: gives the hooks that ablate a unit direction (d_model,) from the whole stream.

    Raises:
        UsageError: a prompt is empty or too long, or memory runs out with a single one.
    """

    def logprobs(prompts: Sequence[Sequence[int]], hooks: list[Hook]) -> Tensor:
        with hooked(model.model, hooks):
            return next_token_logprobs(model, prompts, batch_size=batch_size, description=None)

    plain = logprobs(baseline, [])
    scores = []
    with bar("candidates", candidates.shape[0] * candidates.shape[1]) as progress:
        for row, position in enumerate(positions):
            for layer in range(candidates.shape[1]):
                difference = candidates[row, layer]
                norm = float(difference.double().norm())
                if norm == 0.0:
                    scores.append(CandidateScore(position, layer, math.nan, math.nan, math.nan, norm))
                    progress.advance()
                    continue
                ablated = ablation_hooks((difference.double() / norm).float())
                added = addition_hook(model, layer, difference)
                bypass = refusal_metric(logprobs(target, ablated), tokens).mean()
                induce = refusal_metric(logprobs(baseline, [added]), tokens).mean()
                kl = kl_divergence(plain, logprobs(baseline, ablated)).mean()
                scores.append(CandidateScore(position, layer, float(bypass), float(induce), float(kl), norm))
                progress.advance()
    return scores


def addition_hook(model: Model, layer: int, vector: Tensor) -> Hook:
    """Add `vector` to the stream at the input of a block, at every token."""
    return Hook(model.anatomy.blocks[layer].module, "input", lambda x: x + vector.to(x.device, x.dtype))
