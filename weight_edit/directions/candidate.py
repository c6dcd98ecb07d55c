"""Candidates, the results of a finder: unscored directions at one place of the stream."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """Directions that were found at one position and layer.

    Attributes:
        position: from a prompt's end (-1 is its last token); None for the mean over a prompt's tokens, or for none.
        layer: whose input they were found at; None where they belong to no layer.
        rows: (k, d_model) float64, the leading direction first, of any length and angle: their span is what an ablation
            removes. A row of zeros is no direction.
        vector: (d_model,) float64, what an addition adds, with its length; None where there is none.
        tensors: more that edits need, each (d_model,) or (n, d_model) float64, such as an eraser's factors.
        facts: what the finder knows of them, JSON values; "accuracy" is one of a first classifier on held-out prompts.
    """

    position: int | None
    layer: int | None
    rows: Tensor
    vector: Tensor | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """The norm of `vector`, or without one of the first row; 0 where all rows are zero."""
        if not bool(self.rows.any()):
            return 0.0
        some = self.rows[0] if self.vector is None else self.vector
        return float(some.double().norm())

    @property
    def rank(self) -> int:
        """The number of directions."""
        return int((self.rows != 0).any(dim=-1).sum())


def table_of(candidates: "list[Candidate]", positions: int, layers: int, width: int) -> Tensor | None:
    """The candidates' vectors as one table, (positions, layers, d_model) float32.

    None unless there is one candidate for each position and layer, and each has a vector.
    """
    if len(candidates) != positions * layers or any(candidate.vector is None for candidate in candidates):
        return None
    vectors = [candidate.vector for candidate in candidates if candidate.vector is not None]
    return torch.stack(vectors).reshape(positions, layers, width).float()
