"""Completeness in the stream: how much of it still lies along the directions, at any residual point."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.activations import Point, all_points, each_residual
from weight_edit.runtime.loading import Model


@dataclass(frozen=True)
class Leak:
    """The leak at every residual point.

    Attributes:
        by_point: largest |V^T x| / |x| over all tokens, by point, in the order of the stream.
    """

    by_point: dict[str, float]

    @property
    def worst(self) -> float:
        """The largest over all points; NaN when any is."""
        values = torch.tensor(list(self.by_point.values()), dtype=torch.float64)
        return float("nan") if bool(values.isnan().any()) else float(values.max())

    @property
    def where(self) -> str:
        """The point of the largest; the first that is not a number, if any is."""
        return max(self.by_point, key=lambda point: (math.isnan(self.by_point[point]), self.by_point[point]))


def stream_leak(
    model: Model, directions: Tensor, sequences: Sequence[Sequence[int]], level: Callable[[Point], Tensor] | None = None
) -> Leak:
    """The largest |V^T x - level| / |x| over all residual points and all tokens of the sequences.

    Args:
        directions: orthonormal rows (k, d_model).
        sequences: token ids.
        level: gives the component that stands along each direction by intention, (k,); zero when None.
    """
    rows = directions.double()
    worst: dict[str, float] = {}

    def visit(point: Point, x: Tensor, mask: Tensor) -> None:
        tokens = x[mask.bool()].double()
        along = tokens @ rows.to(tokens.device).T
        share = (along if level is None else along - level(point).to(along)).norm(dim=-1) / tokens.norm(dim=-1)
        largest = float("nan") if bool(share.isnan().any()) else float(share.max())
        name = str(point)
        # NaN must not be lost in a comparison.
        worst[name] = largest if name not in worst or not largest <= worst[name] else worst[name]

    each_residual(model, sequences, all_points(model), visit, description="leak")
    return Leak({str(point): worst[str(point)] for point in all_points(model)})
