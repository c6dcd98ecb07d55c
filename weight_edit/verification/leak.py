"""Completeness in the stream: its share along the removed directions, at every point."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from weight_edit.runtime.activations import each_residual
from weight_edit.runtime.loading import Model
from weight_edit.runtime.points import Point, all_points, hook_at


@dataclass(frozen=True)
class Leak:
    """The leak at every residual point.

    Attributes:
        by_point: largest |V^T x| / |x| over all tokens, by point, in the order of the stream.
    """

    by_point: dict[str, float]

    def with_more(self, other: "Leak") -> "Leak":
        """The larger one at each point, of two at the same points; NaN must not be lost in a comparison."""
        return Leak(
            {
                point: value if not value <= other.by_point[point] else other.by_point[point]
                for point, value in self.by_point.items()
            }
        )

    @property
    def worst(self) -> float:
        """The largest leak over all points; NaN if any is NaN."""
        values = torch.tensor(list(self.by_point.values()), dtype=torch.float64)
        return float("nan") if bool(values.isnan().any()) else float(values.max())

    @property
    def where(self) -> str:
        """The point of the largest leak, or the first point with NaN."""
        return max(self.by_point, key=lambda point: (math.isnan(self.by_point[point]), self.by_point[point]))


class LeakMeter:
    """The leak of a model's stream, measured by hooks during any forward passes.

    Args:
        directions: orthonormal rows (k, d_model).
        level: gives the component that stands along each direction by intention, (k,); zero when None.
    """

    def __init__(self, model: Model, directions: Tensor, level: Callable[[Point], Tensor] | None = None) -> None:
        self._rows = directions.double()
        self._level = level
        self._worst: dict[str, float] = {}
        self._points = all_points(model)
        self.hooks = [hook_at(model, point, partial(self._see, point)) for point in self._points]

    def _see(self, point: Point, x: Tensor) -> Tensor:
        self.visit(point, x.flatten(0, 1))
        return x

    def visit(self, point: Point, tokens: Tensor) -> None:
        """Measure the stream at a point, (tokens, d_model) or (tokens, streams, d_model)."""
        tokens = tokens.double()
        along = tokens @ self._rows.to(tokens.device).T
        level = self._level
        share = (along if level is None else along - level(point).to(along)).norm(dim=-1) / tokens.norm(dim=-1)
        largest = float("nan") if bool(share.isnan().any()) else float(share.max())
        name = str(point)
        known = self._worst.get(name)
        # NaN must not be lost in a comparison.
        self._worst[name] = largest if known is None or not largest <= known else known

    @property
    def leak(self) -> Leak:
        """The leak over all forward passes so far."""
        return Leak({str(point): self._worst[str(point)] for point in self._points})


def stream_leak(
    model: Model, directions: Tensor, sequences: Sequence[Sequence[int]], level: Callable[[Point], Tensor] | None = None
) -> Leak:
    """The largest |V^T x - level| / |x| over all residual points and tokens.

    Args:
        directions, level: as of `LeakMeter`.
        sequences: token ids.
    """
    meter = LeakMeter(model, directions, level)

    def visit(point: Point, x: Tensor, mask: Tensor) -> None:
        meter.visit(point, x[mask.bool()])

    each_residual(model, sequences, all_points(model), visit, description="leak")
    return meter.leak
