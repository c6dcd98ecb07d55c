"""How well an operator's prediction fits a tensor."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

ROUNDINGS = 4.0
"""How many times the energy of one rounding a remainder may have and still be called rounding.

A tool that computes in the storage format rounds the direction, the product and the sum; rounding to the farther of two
neighbours at will (balanced rounding) has four times the energy of rounding to the nearer one.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class OperatorFit:
    """The fit of one operator to one tensor.

    Attributes:
        operator: its name.
        rows: (k, d) orthonormal directions, in front of whatever norm there is; k may be 0.
        strength: 1 for a full edit, 2 for a reflection; None where the operator has none.
        explained: 1 - |B - P|^2 / |D|^2 for the prediction P of B.
        excess: |B - P|^2 over what rounding each number once to the storage format makes.
        correlation: the negated correlation of D with A along the directions, rounding noise taken off; None where
            the operator has no directions.
        left: |V^T B| / |V^T A|; None likewise.
        facts: whatever else an operator knows.
        predicted: P.
    """

    operator: str
    rows: NDArray[np.float64]
    strength: float | None
    explained: float
    excess: float
    correlation: float | None
    left: float | None
    predicted: Values
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether rounding alone explains the rest."""
        return self.excess <= ROUNDINGS


def fitted(
    operator: str,
    sample: Sample,
    predicted: Values,
    columns: Values | None = None,
    strength: float | None = None,
    **facts: Any,
) -> OperatorFit:
    """The fit of a prediction.

    Args:
        predicted: P, (d, m).
        columns: V, (d, k) orthonormal.
    """
    error = sample.b - predicted
    square = float(np.vdot(error, error))
    none = columns is None or not columns.size
    return OperatorFit(
        operator=operator,
        rows=np.zeros((0, sample.width)) if columns is None else columns.T,
        strength=strength,
        explained=1 - square / sample.square if sample.square else 0.0,
        excess=square / sample.noise if sample.noise else float("inf"),
        correlation=None if none or columns is None else correlation(sample, columns),
        left=None if none or columns is None else left_along(sample, columns),
        predicted=predicted,
        facts=dict(facts),
    )


def correlation(sample: Sample, columns: Values) -> float:
    """The negated correlation of D and A along directions, once the noise of rounding is taken off."""
    d, a = columns.T @ sample.change, columns.T @ sample.a
    noise = columns.shape[1] * min(sample.noise, sample.square) / sample.width
    square = max(float(np.vdot(d, d)) - noise, 0.1 * float(np.vdot(d, d)))
    along = square * float(np.vdot(a, a))
    return float(np.clip(-float(np.vdot(d, a)) / along**0.5, -1.0, 1.0)) if along > 0 else 0.0


def left_along(sample: Sample, columns: Values) -> float:
    """|V^T B| / |V^T A|."""
    before = float(np.linalg.norm(columns.T @ sample.a))
    return float(np.linalg.norm(columns.T @ sample.b)) / before if before else 0.0


def leading(matrix: Values, count: int, seed: int = 0) -> tuple[Values, Values]:
    """The largest singular values of a matrix and their left vectors, (d, count).

    By a randomised range finder with two power iterations, where the matrix is large.
    """
    if min(matrix.shape) <= 4 * count or min(matrix.shape) <= 200:
        left, values, _ = np.linalg.svd(matrix, full_matrices=False)
        return left[:, :count], values[:count]
    mixing = np.random.default_rng(seed).standard_normal((matrix.shape[1], count + 8))
    basis = np.linalg.qr(matrix @ mixing)[0]
    for _ in range(2):
        basis = np.linalg.qr(matrix @ (matrix.T @ basis))[0]
    inner, values, _ = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ inner)[:, :count], values[:count]
