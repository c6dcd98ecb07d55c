"""Checks for NaN and infinities that say where in the model they begin."""

from collections.abc import Sequence

import torch
from torch import Tensor

from weight_edit.errors import UsageError, WeightEditError
from weight_edit.runtime.activations import each_residual
from weight_edit.runtime.generation import Generation
from weight_edit.runtime.loading import Model
from weight_edit.runtime.points import Point, all_points

_PLACES = {"resid_pre": "the input", "resid_mid": "the middle", "resid_post": "the output"}
_REMEDIES = {
    torch.float16: "load it in bfloat16 or float32 (`dtype`)",
    torch.bfloat16: "load it in float32 (`dtype`)",
}


def overflow(model: Model, sequences: Sequence[Sequence[int]]) -> str | None:
    """The place, in words, where a sequence first makes the stream not finite; else None.

    Args:
        sequences: token ids; each is run alone, until one is found.
    """
    for sequence in sequences:
        largest, first = _first_not_finite(model, sequence)
        if first is not None:
            before = (
                f" (it reached {largest:.1e} before; {_name(model)} ends at {_limit(model):.1e})" if largest else ""
            )
            place = f"from {_PLACES[first.kind]} of block {first.layer} on"
            return _said(model, f"the residual stream is not finite {place}{before}")
    return None


def check_stream(
    model: Model, sequences: Sequence[Sequence[int]], stream: Tensor, error: type[WeightEditError] = UsageError
) -> None:
    """Refuse activations (sequences, ...) that are not finite.

    Raises:
        WeightEditError: `error`, with the place where the first of them became so.
    """
    _refuse(model, sequences, ~stream.isfinite().flatten(start_dim=1).all(dim=1), error)


def check_logprobs(
    model: Model,
    sequences: Sequence[Sequence[int]],
    logprobs: Sequence[Tensor] | Tensor,
    error: type[WeightEditError] = UsageError,
) -> None:
    """Refuse log-probabilities that are NaN; minus infinity, a probability of 0, passes.

    There is one tensor for each sequence.

    Raises:
        WeightEditError: as `check_stream`.
    """
    _refuse(model, sequences, torch.tensor([bool(values.isnan().any()) for values in logprobs]), error)


def check_generations(
    model: Model,
    sequences: Sequence[Sequence[int]],
    said: Sequence[Generation],
    error: type[WeightEditError] = UsageError,
) -> None:
    """Refuse answers generated from NaN logits.

    Raises:
        WeightEditError: as `check_stream`.
    """
    whole = [[*prompt, *answer.tokens] for prompt, answer in zip(sequences, said, strict=True)]
    _refuse(model, whole, torch.tensor([not answer.finite for answer in said]), error)


def _refuse(model: Model, sequences: Sequence[Sequence[int]], bad: Tensor, error: type[WeightEditError]) -> None:
    if not bool(bad.any()):
        return
    first = [sequences[int(row)] for row in bad.nonzero()[:1]]
    # Behind the last block there are a norm and the unembedding.
    said = overflow(model, first) or _said(model, "the logits are not finite, though the residual stream is")
    raise error(said, option="dtype")


def _first_not_finite(model: Model, sequence: Sequence[int]) -> tuple[float, Point | None]:
    """The largest finite magnitude before the first point that is not finite, and that point."""
    largest, first = 0.0, None

    def visit(point: Point, x: Tensor, mask: Tensor) -> None:
        nonlocal largest, first
        if first is None and bool(x.isfinite().all()):
            largest = max(largest, float(x.abs().max()))
        elif first is None:
            first = point

    each_residual(model, [sequence], all_points(model), visit, description=None)
    return largest, first


def _said(model: Model, what: str) -> str:
    remedy = _REMEDIES.get(model.dtype, "its weights may be damaged or the edit too strong")
    return f"{model.source.name} in {_name(model)}: {what}; {remedy}"


def _name(model: Model) -> str:
    return str(model.dtype).removeprefix("torch.")


def _limit(model: Model) -> float:
    return torch.finfo(model.dtype).max
