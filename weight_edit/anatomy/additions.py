"""Which module outputs were added up to make a step of the residual stream.

A step `after - before` (for the embeddings: the first block's input) must be a linear combination of module outputs
with constant coefficients: 1, or a family's residual multiplier. Least squares over all positions and channels finds
the coefficients without a name or a class; a step that no combination explains means that something unknown writes
into the stream, and the model is refused.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.anatomy.trace import Call, same


@dataclass(frozen=True)
class Addition:
    """One summand: the call whose output is added, and its coefficient."""

    call: Call
    scale: float


def additions(step: Tensor, candidates: list[Call], tolerance: float = 1e-5) -> list[Addition] | None:
    """The summands of a step, in the order in which their modules returned, or None when the step is not explained.

    Args:
        step: (batch, tokens, d_model), float64.
        candidates: calls in the order in which they returned; outputs of another shape are passed over, and of
            equal outputs (an attention and its output projection) only the first, innermost one counts.
        tolerance: what may be left unexplained, relative to the step.
    """
    distinct: list[Call] = []
    columns: list[Tensor] = []
    for call in candidates:
        output = call.returned
        if output.ndim == 2:
            output = output[None]
        if output.ndim != 3 or output.shape[1:] != step.shape[1:] or output.shape[0] not in (1, step.shape[0]):
            continue
        output = output.expand_as(step)
        if not output.any() or any(same(output, other) for other in columns):
            continue
        distinct.append(call)
        columns.append(output)
    if not columns:
        return None
    matrix = torch.stack([column.flatten() for column in columns], dim=1)
    scales = torch.linalg.lstsq(matrix, step.flatten()[:, None]).solution[:, 0]
    left = (step.flatten() - matrix @ scales).norm()
    if not left <= tolerance * step.norm():
        return None
    # A coefficient that float32 rounding leaves where the true one is zero is far below any real multiplier, and five
    # digits of a real one are sure.
    found = [Addition(call, float(f"{float(scale):.5g}")) for call, scale in zip(distinct, scales, strict=True)]
    return [addition for addition in found if abs(addition.scale) > 1e-3]
