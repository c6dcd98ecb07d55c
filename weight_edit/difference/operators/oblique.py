"""An oblique eraser of the whole stream, `D = -L R^T A` with one L and R for all writers (LEACE, arXiv 2306.03819).

Of one tensor alone any difference of low rank has that form; that several follow one R tells it from an adapter.
"""

from collections.abc import Callable, Sequence

import numpy as np

from weight_edit.difference.operators.fit import OperatorFit, fitted
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

WIDEST = 4096
"""The widest stream for which the Gram matrix, width x width, is made."""

_LEAST = 3
ALIKE = 0.98
"""The least mean squared cosine between the tensors' left directions."""


def oblique(
    lefts: Sequence[Values], sample: Callable[[int], Sample | None]
) -> tuple[list[OperatorFit], Values, Values] | None:
    """The fits of one eraser to several tensors, with L and R, each (d, k); None where they follow none.

    R is fitted to every second vector of all tensors, and the fits are those of the others.

    Args:
        lefts: of each tensor, the left directions of its difference, (d, k) orthonormal.
        sample: of each tensor by its number, behind its norm; made anew each time, so that one is held at a time.
    """
    ranks = {left.shape[1] for left in lefts}
    if len(lefts) < _LEAST or len(ranks) != 1 or lefts[0].shape[0] > WIDEST:
        return None
    (rank,) = ranks
    stacked = np.concatenate(list(lefts), axis=1) / len(lefts) ** 0.5
    left, values, _ = np.linalg.svd(stacked, full_matrices=False)
    if not rank or float((values[:rank] ** 2).sum()) / rank < ALIKE:
        return None
    left = np.asarray(left[:, :rank], np.float64)
    gram = np.zeros((len(left), len(left)))
    cross = np.zeros((len(left), rank))
    for number in range(len(lefts)):
        given = sample(number)
        if given is None:
            return None
        a = given.a[:, ::2]
        gram += a @ a.T
        cross -= a @ (left.T @ given.change[:, ::2]).T
    right = np.asarray(np.linalg.lstsq(gram, cross, rcond=1e-12)[0], np.float64)
    fits = []
    for number in range(len(lefts)):
        given = sample(number)
        assert given is not None
        fits.append(fitted("oblique erasure", given.every_second(), _erased(given, left, right), left))
    return fits, left, right


def _erased(given: Sample, left: Values, right: Values) -> Values:
    a = given.a[:, 1::2]
    return a - left @ (right.T @ a)
