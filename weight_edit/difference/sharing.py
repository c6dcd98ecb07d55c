"""Whether edited tensors share directions, as they lie on disk or in the stream behind norms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.operators.common import ALIKE, common_directions
from weight_edit.difference.tensor_verdict import TensorVerdict
from weight_edit.edits.projection import orthonormal_rows


@dataclass(frozen=True, eq=False)
class Shared:
    """Directions that tensors share, if they do.

    Attributes:
        rows: (k, d) orthonormal, the directions in the stream; k is 0 where they are not shared.
        through_norms: whether the gains of norms behind the writers were taken off first.
        alike: the mean squared cosine with the common directions, shared or not.
        stream_rows: of each tensor, its directions in the stream.
    """

    rows: NDArray[np.float64]
    through_norms: bool
    alike: float
    stream_rows: tuple[NDArray[np.float64], ...]

    def cosine(self, number: int) -> float | None:
        """The least cosine between one tensor's directions and the shared ones."""
        own = self.stream_rows[number]
        if not len(self.rows) or not len(own):
            return None
        return float(np.linalg.svd(own @ self.rows.T, compute_uv=False).min())


def shared_directions(found: Sequence[TensorVerdict], width: int) -> Shared:
    """The directions that the fits of some tensors share.

    Args:
        found: tensors that were edited.
    """
    raw = [np.asarray(each.fit.rows, np.float64) for each in found]
    plain = common_directions(raw, width)
    gained = [behind_norm(each, rows) for each, rows in zip(found, raw, strict=True)]
    if all(g is r for g, r in zip(gained, raw, strict=True)):
        return Shared(*_kept(plain), through_norms=False, alike=plain[1], stream_rows=tuple(raw))
    behind = common_directions(gained, width)
    if behind[1] > plain[1]:
        return Shared(*_kept(behind), through_norms=True, alike=behind[1], stream_rows=tuple(gained))
    return Shared(*_kept(plain), through_norms=False, alike=plain[1], stream_rows=tuple(raw))


def _kept(common: tuple[NDArray[np.float64], float]) -> tuple[NDArray[np.float64]]:
    return (common[0] if common[1] >= ALIKE else common[0][:0],)


def behind_norm(found: TensorVerdict, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions in the stream, where a writer's own are `gain * v` in front of its norm."""
    part = found.part
    if part is None or part.gains is None or part.centred or len(part.gains) != rows.shape[1]:
        return rows
    if not np.abs(part.gains).min() > 1e-6 * np.abs(part.gains).max():
        return rows
    return orthonormal_rows(rows / part.gains)
