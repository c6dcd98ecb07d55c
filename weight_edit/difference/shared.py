"""The directions that the differences of many tensors share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.explanation import Products
from weight_edit.difference.pairs import Values

CANDIDATES = 24
"""The number of candidate directions in the last pass."""

_KEPT = 48
_FULL = 96

LEAST_SHARE = 0.05
"""The least mean share of the differences along the first shared direction.

A further direction needs a tenth of the first's share.
"""

_PURE = 0.9


class Sketch:
    """A sketch of the strongest directions of many vectors, in fixed memory.

    The method is frequent directions (Liberty 2013).
    """

    def __init__(self) -> None:
        self._columns: Values | None = None

    def add(self, vectors: NDArray[np.floating], weights: NDArray[np.floating]) -> None:
        """Add the columns of `vectors`, shape (d, n), times `weights`, shape (n,)."""
        new = vectors.astype(np.float64) * weights
        held = new if self._columns is None else np.concatenate([self._columns, new], axis=1)
        if held.shape[1] > _FULL:
            left, values, _ = np.linalg.svd(held, full_matrices=False)
            least = values[_KEPT] if len(values) > _KEPT else 0.0
            held = left[:, :_KEPT] * np.sqrt(np.maximum(values[:_KEPT] ** 2 - least**2, 0.0))
        self._columns = held

    @property
    def directions(self) -> Values | None:
        """At most `CANDIDATES` orthonormal columns, strongest first; None if nothing was added."""
        if self._columns is None:
            return None
        left, values, _ = np.linalg.svd(self._columns, full_matrices=False)
        return left[:, :CANDIDATES][:, values[:CANDIDATES] > 1e-6 * values[0]]

    @property
    def concentration(self) -> float:
        """The strongest direction's share of the squared norm; 0 if nothing was added."""
        if self._columns is None:
            return 0.0
        squares = np.linalg.svd(self._columns, compute_uv=False) ** 2
        return float(squares[0] / squares.sum())


@dataclass(frozen=True)
class SharedDirection:
    """A direction that the differences of several tensors share.

    Attributes:
        share: of |D|^2, on average over the tensors that differ, that lies along it.
        tensors: in how many tensors, counting those with little of it for less.
        ablation: the correlation of what the difference has along it with what A had along it, negated, on average over
            tensors by their share: 1 where a part of the component was taken away, as an ablation does, 0 where
            something unrelated was put there.
    """

    share: float
    tensors: float
    ablation: float

    @property
    def is_ablation(self) -> bool:
        """Whether the change along it is an ablation: whole, partial or beyond."""
        return self.ablation >= _PURE

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return {"share": self.share, "tensors": round(self.tensors, 2), "ablation": self.ablation}


def choose(
    found: Sequence[Products], ranks: Sequence[int | None], width: int, others: int
) -> tuple[Values, list[SharedDirection]]:
    """The directions, in the span of the candidates, that the differences share.

    A direction counts when it carries more of the differences than chance would give it, when more than one tensor has
    it (or an ablation along it is what happened), and as long as there are no more than the tensors have ranks.

    Args:
        found: of each tensor, with all candidates.
        ranks: of each tensor's difference; None for a full one.
        width: of the stream.
        others: vectors of that width in all differences together.

    Returns:
        the basis, shape (candidates, k), the strongest first, and what is known of each.
    """
    mean = sum(product.dd / product.square for product in found) / len(found)
    squares, basis = np.linalg.eigh(mean)
    squares, basis = squares[::-1], basis[:, ::-1]
    # The largest share that a direction has of differences that have none in particular.
    chance = (width**-0.5 + max(1, others) ** -0.5) ** 2
    known = sorted(rank for rank in ranks if rank)
    most = known[int(0.9 * (len(known) - 1))] if known else CANDIDATES
    directions: list[SharedDirection] = []
    for number in range(min(most, len(squares))):
        least = max(3 * chance, LEAST_SHARE if not directions else 0.1 * directions[0].share)
        direction = _described(found, basis[:, [number]])
        if direction.share < least or not (direction.tensors > 1.5 or direction.is_ablation):
            break
        directions.append(direction)
    return basis[:, : len(directions)], directions


def _described(found: Sequence[Products], vector: Values) -> SharedDirection:
    turned = [product.turned(vector) for product in found]
    shares = np.array([product.share for product in turned])
    total = float(shares.sum())
    ablation = sum(_correlation(product) * share for product, share in zip(turned, shares, strict=True))
    return SharedDirection(
        total / len(shares), total**2 / float((shares**2).sum() or 1.0), float(ablation) / total if total else 0.0
    )


def _correlation(product: Products) -> float:
    """Negated correlation of the components of D and A along one direction."""
    d, cross, a = (float(found[0, 0]) for found in (product.dd, product.da, product.aa))
    return -cross / (d * a) ** 0.5 if d > 0 and a > 0 else 0.0
