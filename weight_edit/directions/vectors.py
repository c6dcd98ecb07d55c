"""Cosines and projections of directions."""

import torch
from torch import Tensor

from weight_edit.edits.projection import orthonormal_rows

ROUNDING = 1e-6
"""The relative length below which a projected vector counts as zero."""


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the angle between two vectors (d_model,), in float64; 0 where one is zero."""
    lengths = a.double().norm() * b.double().norm()
    return float(a.double() @ b.double() / lengths) if float(lengths) > 0 else 0.0


def without_span(rows: Tensor, others: Tensor, strength: float = 1.0) -> Tensor:
    """`rows` (k, d_model) minus `strength` times their projection on the span of `others`.

    `others` is (m, d_model); the result is float64. A row that is nothing but rounding error afterwards is zero.
    """
    basis = torch.from_numpy(orthonormal_rows(others))
    left = rows - strength * (rows @ basis.T) @ basis
    meaningful = left.norm(dim=-1) > ROUNDING * rows.norm(dim=-1)
    return torch.where(meaningful[:, None], left, torch.zeros_like(left))
