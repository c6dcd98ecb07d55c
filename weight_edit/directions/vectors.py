"""Angles and parts of directions."""

import torch
from torch import Tensor

from weight_edit.edits.projection import orthonormal_rows

ROUNDING = 1e-6
"""What is left of a vector, as a share of its length, is no direction below this."""


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors (d_model,), in float64; 0 where one is zero."""
    lengths = a.double().norm() * b.double().norm()
    return float(a.double() @ b.double() / lengths) if float(lengths) > 0 else 0.0


def without_span(rows: Tensor, others: Tensor, strength: float = 1.0) -> Tensor:
    """`rows` (k, d_model) less `strength` times their part in the span of `others` (m, d_model), float64.

    A row that is nothing but rounding error afterwards is zero.
    """
    basis = torch.from_numpy(orthonormal_rows(others))
    left = rows - strength * (rows @ basis.T) @ basis
    meaningful = left.norm(dim=-1) > ROUNDING * rows.norm(dim=-1)
    return torch.where(meaningful[:, None], left, torch.zeros_like(left))
