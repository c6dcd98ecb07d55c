"""Whether edited tensors share directions, as they lie on disk or in the stream behind norms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.operators.common import ALIKE, common_directions, mean_squared_cosine
from weight_edit.difference.tensor_verdict import TensorVerdict
from weight_edit.edits.projection import orthonormal_rows

_TURNS = 20
"""Turns of the fit behind norms, which is still after a few."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Shared:
    """Directions that tensors share, if they do.

    Attributes:
        rows: (k, d) orthonormal, the directions in the stream; k is 0 where they are not shared.
        through_norms: whether the gains of norms behind the writers were allowed for.
        alike: the mean squared cosine with the common directions, shared or not.
        own: of each tensor, its own directions.
        predicted: of each tensor, the common directions as they are in front of its norm.
    """

    rows: NDArray[np.float64]
    through_norms: bool
    alike: float
    own: tuple[NDArray[np.float64], ...]
    predicted: tuple[NDArray[np.float64], ...]

    def cosine(self, number: int) -> float | None:
        """The least cosine between one tensor's directions and the shared ones."""
        if not len(self.rows) or not len(self.own[number]):
            return None
        return float(np.linalg.svd(self.own[number] @ self.predicted[number].T, compute_uv=False).min())


def shared_directions(found: Sequence[TensorVerdict], width: int) -> Shared:
    """The directions that the fits of some tensors share.

    Args:
        found: tensors that were edited.
    """
    own = [np.asarray(each.fit.rows, np.float64) for each in found]
    common, alike = common_directions(own, width)
    predicted = [common] * len(own)
    gains = [_gains_of(each, width) for each in found]
    through_norms = False
    if any(each is not None for each in gains):
        factors = [np.ones(width) if each is None else each for each in gains]
        behind = _behind_norms(own, factors, width)
        before = [orthonormal_rows(behind * each) for each in factors]
        nearer = mean_squared_cosine(own, before)
        if nearer > alike:
            common, alike, predicted, through_norms = behind, nearer, before, True
    return Shared(
        rows=common if alike >= ALIKE else common[:0],
        through_norms=through_norms,
        alike=alike,
        own=tuple(own),
        predicted=tuple(predicted),
    )


def _behind_norms(
    own: Sequence[NDArray[np.float64]], gains: Sequence[NDArray[np.float64]], width: int
) -> NDArray[np.float64]:
    """The directions W of the stream for which `W diag(g)` is nearest to each tensor's own, (k, d) orthonormal.

    By least squares in turns for W and the mixtures M in `own ~ M W diag(g)`: where a gain is small a direction is seen
    less, and what its division by the gain would give there is rounding's noise.
    """
    start = [
        orthonormal_rows(rows * g / (g * g + 1e-3 * float((g * g).mean()))) for rows, g in zip(own, gains, strict=True)
    ]
    common, _ = common_directions(start, width)
    same = [number for number, rows in enumerate(own) if len(rows) == len(common)]
    for _ in range(_TURNS if len(common) else 0):
        squares = np.zeros((width, len(common), len(common)))
        products = np.zeros((width, len(common)))
        for number in same:
            before = common * gains[number]
            mixture = np.linalg.lstsq(before.T, own[number].T, rcond=None)[0].T
            squares += (gains[number] ** 2)[:, None, None] * (mixture.T @ mixture)
            products += gains[number][:, None] * (mixture.T @ own[number]).T
        solved = np.linalg.pinv(squares, hermitian=True) @ products[:, :, None]
        common = orthonormal_rows(solved[:, :, 0].T)
    return common


def _gains_of(found: TensorVerdict, width: int) -> NDArray[np.float64] | None:
    """The gains of the norm behind a writer; None where there is none, or where it takes the mean off, too."""
    part = found.part
    if part is None or part.gains is None or part.centred or len(part.gains) != width:
        return None
    return np.asarray(part.gains, np.float64)


def behind_norm(found: TensorVerdict, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions in the stream, where a writer's own are `gain * v` in front of its norm."""
    gains = _gains_of(found, rows.shape[1])
    if gains is None or not np.abs(gains).min() > 1e-6 * np.abs(gains).max():
        return rows
    return orthonormal_rows(rows / gains)
