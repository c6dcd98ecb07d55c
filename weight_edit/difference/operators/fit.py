"""What an operator predicts of a tensor, and how well that fits vectors to which it was not fitted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

ROUNDINGS = 4.0
"""How many times the energy of one rounding a remainder may have and still be called rounding.

A tool that computes in the storage format rounds the direction, the product and the sum; rounding to the farther of two
neighbours at will (balanced rounding) has four times the energy of rounding to the nearer one.
"""

SIGMAS = 5.0
"""How many standard errors a correlation must be above none.

By chance one in 3.5 million is; a model has some thousands of tensors, each of which is asked for a dozen of fits.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Rule:
    """An operator with its parameters, fitted to some vectors of a tensor.

    Attributes:
        operator: its name.
        columns: V, (d, k) orthonormal, in front of whatever norm there is; k may be 0.
        strength: 1 for a full edit, 2 for a reflection; None where the operator has none.
        predict: P of any vectors of that tensor, (d, m).
        facts: whatever else an operator knows.
    """

    operator: str
    columns: Values
    strength: float | None
    predict: Callable[[Sample], Values]
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, kw_only=True)
class OperatorFit:
    """How one operator fits one tensor.

    Attributes:
        rule: the operator with its parameters.
        explained: 1 - |B - P|^2 / |D|^2 for the prediction P of B, over vectors that the rule was not fitted to.
        excess: |B - P|^2 over what rounding each number once to the storage format makes, over these.
        correlation: the negated correlation of D with A along the directions, rounding noise taken off; None where
            the operator has no directions.
        sigmas: that correlation as it is, about the means of the vectors, in standard errors of none; 0 where the
            operator has no directions.
        deviation: the standard error of the strength, as far as |B - P| is noise of all coordinates alike.
        left: |V^T B| / |V^T A|; None likewise.
    """

    rule: Rule
    explained: float
    excess: float
    correlation: float | None
    sigmas: float
    deviation: float
    left: float | None

    @property
    def operator(self) -> str:
        """The operator's name."""
        return self.rule.operator

    @property
    def strength(self) -> float | None:
        """See `Rule`."""
        return self.rule.strength

    @property
    def rows(self) -> NDArray[np.float64]:
        """(k, d) orthonormal directions."""
        return self.rule.columns.T

    @property
    def exact(self) -> bool:
        """Whether rounding alone explains the rest, and the rest is less than what is explained."""
        return self.excess <= ROUNDINGS and self.explained > 0.5


def fit_of(rule: Rule, judged: Sample) -> OperatorFit:
    """How well a rule fits.

    Args:
        judged: vectors that it was not fitted to.
    """
    error = judged.b - rule.predict(judged)
    square = float(np.vdot(error, error))
    v = rule.columns
    return OperatorFit(
        rule=rule,
        explained=1 - square / judged.square if judged.square else 0.0,
        excess=square / judged.noise if judged.noise else float("inf"),
        correlation=correlation(judged, v) if v.size else None,
        sigmas=_sigmas(judged, v) if v.size else 0.0,
        deviation=_deviation(judged, v, square) if v.size else 0.0,
        left=left_along(judged, v) if v.size else None,
    )


def _deviation(sample: Sample, columns: Values, square: float) -> float:
    along = float(np.linalg.norm(columns.T @ sample.a))
    return (square / sample.a.size) ** 0.5 / along if along else 0.0


def _sigmas(sample: Sample, columns: Values) -> float:
    """The negated correlation of D and A along directions in its standard errors (Fisher's z)."""
    d, a = columns.T @ sample.change, columns.T @ sample.a
    d, a = d - d.mean(1, keepdims=True), a - a.mean(1, keepdims=True)
    square = float(np.vdot(d, d)) * float(np.vdot(a, a))
    free = columns.shape[1] * (d.shape[1] - 1) - 2
    if square <= 0 or free <= 0:
        return 0.0
    r = float(np.clip(-float(np.vdot(d, a)) / square**0.5, -_WHOLE, _WHOLE))
    return float(np.arctanh(r)) * free**0.5


_WHOLE = 1 - 1e-12


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
