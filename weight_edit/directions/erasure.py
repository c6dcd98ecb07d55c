"""Least-squares concept erasure (LEACE, arXiv 2306.03819): the least change that leaves nothing linear to read.

The operator and what fits it are two things, as in the library concept-erasure.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from weight_edit.edits.arrays import Floats

Shrinkage = Literal["optimal"] | float

# Singular values of the whitened covariance with the labels: what is below is no relation. The library's figure.
_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Eraser:
    """The map `x -> x - left^T right (x - mean)`; `left right^T` is the identity, so that it is an oblique projection.

    Attributes:
        left: (k, d) float64, what is taken off, in the span of the covariances of the stream with the labels.
        right: (k, d) float64, what is read.
        mean: (d,) float64, of the data; it stays where it is.
        shrinkage: share of the covariance that was replaced by a multiple of the identity.
    """

    left: Floats
    right: Floats
    mean: Floats
    shrinkage: float = 0.0

    @property
    def P(self) -> Floats:
        """`I - left^T right`, (d, d)."""
        projection: Floats = np.eye(len(self.mean)) - self.left.T @ self.right
        return projection

    def __call__(self, x: Floats) -> Floats:
        """Erase from `x` (..., d)."""
        erased: Floats = x - ((x - self.mean) @ self.right.T) @ self.left
        return erased


class EraserFitter:
    """Statistics of data and labels, from which the eraser is computed.

    Attributes:
        count: rows seen so far.
        mean_x, mean_z: their means, (d,), (k,).
        sum_xx, sum_xz: sums of products of what is left without the means, (d, d), (d, k).
    """

    def __init__(self, width: int, labels: int, *, shrinkage: Shrinkage = "optimal", ambient: int | None = None):
        """
        Args:
            width: d, of the data.
            labels: k, how many columns the labels have.
            shrinkage: share of the covariance that is replaced by a multiple of the identity of the same trace: 0 for
                none, 1 for all (an orthogonal projection), "optimal" for the asymptotically best of arXiv 1308.2608.
            ambient: dimension of the space that the data's coordinates are of; for shrinkage, `width` when None.
        """
        self.shrinkage: Shrinkage = shrinkage
        self.ambient = width if ambient is None else ambient
        self.count = 0
        self.mean_x, self.mean_z = np.zeros(width), np.zeros(labels)
        self.sum_xx, self.sum_xz = np.zeros((width, width)), np.zeros((width, labels))

    def update(self, x: Floats, z: Floats) -> "EraserFitter":
        """Add data (n, d) with labels (n, k), of any scale: one column for each thing to erase."""
        seen, new = self.count, len(x)
        self.count += new
        shift_x, shift_z = x.mean(axis=0) - self.mean_x, z.mean(axis=0) - self.mean_z
        centred = x - x.mean(axis=0)
        weight = seen * new / self.count
        self.sum_xx += centred.T @ centred + weight * np.outer(shift_x, shift_x)
        self.sum_xz += centred.T @ (z - z.mean(axis=0)) + weight * np.outer(shift_x, shift_z)
        self.mean_x += shift_x * new / self.count
        self.mean_z += shift_z * new / self.count
        return self

    @property
    def eraser(self) -> Eraser:
        """`x - W^+ U U^T W (x - mean)`, with `W = Sxx^(-1/2)` and `U` an orthonormal basis of the range of `W Sxz`.

        Where there is nothing to erase, k is 0.
        """
        covariance = self.sum_xx / max(1, self.count - 1)
        share = self._share(covariance)
        level = np.trace(covariance) / self.ambient
        covariance = (1 - share) * covariance + share * level * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        # Below this an eigenvalue is rounding error; the pseudo-inverse leaves it out.
        large = values > values.max(initial=0.0) * self.ambient * np.finfo(float).eps
        values, vectors = values[large], vectors[:, large]
        whitened = (vectors / np.sqrt(values)).T @ (self.sum_xz / max(1, self.count - 1))
        u, strengths, _ = np.linalg.svd(whitened, full_matrices=False)
        u = u[:, strengths > _TOLERANCE]
        return Eraser((vectors * np.sqrt(values) @ u).T, (vectors / np.sqrt(values) @ u).T, self.mean_x.copy(), share)

    def _share(self, covariance: Floats) -> float:
        """The share that is replaced; the optimal one is for a multiple of the identity as the target."""
        if self.shrinkage != "optimal":
            return float(self.shrinkage)
        square = float(np.trace(covariance)) ** 2
        spread = float((covariance**2).sum()) - square / self.ambient
        return 1.0 if spread <= 0 else min(1.0, square / self.count / spread)


def fitted_eraser(x: Floats, z: Floats, *, shrinkage: Shrinkage = "optimal") -> Eraser:
    """The eraser of `x` (n, d) with labels `z` (n, k).

    With fewer rows than columns it is computed in the span of the rows without their mean. The result is the same:
    elsewhere whitening is a multiple of the identity, and the covariance with the labels lies within.
    """
    if len(x) > x.shape[1]:
        return EraserFitter(x.shape[1], z.shape[1], shrinkage=shrinkage).update(x, z).eraser
    mean = x.mean(axis=0)
    _, scales, basis = np.linalg.svd(x - mean, full_matrices=False)
    basis = basis[scales > scales[0] * np.finfo(float).eps * len(mean)]
    fitter = EraserFitter(len(basis), z.shape[1], shrinkage=shrinkage, ambient=len(mean))
    inner = fitter.update((x - mean) @ basis.T, z).eraser
    return Eraser(inner.left @ basis, inner.right @ basis, mean, inner.shrinkage)
