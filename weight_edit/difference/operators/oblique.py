"""An oblique eraser of the whole stream, `D = -L R^T A` with one L and R for all writers (LEACE, arXiv 2306.03819).

Of one tensor alone any difference of low rank has that form; that several follow one R tells it from an adapter.
"""

from collections.abc import Callable, Sequence

import numpy as np

from weight_edit.difference.operators.common import ALIKE, common_directions
from weight_edit.difference.operators.fit import OperatorFit, Rule, fit_of
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

WIDEST = 4096
"""The widest stream for which the Gram matrix, width x width, is made."""

OBLIQUE = "oblique erasure"
_LEAST = 3


def oblique(
    lefts: Sequence[Values], sample: Callable[[int], Sample | None]
) -> tuple[list[OperatorFit], Values, Values] | None:
    """The fits of one eraser to several tensors, with L and R, each (d, k); None where they follow none.

    R is fitted to one half of the vectors of all tensors, and the fits are those of the others.

    Args:
        lefts: of each tensor, the left directions of its difference, (d, k) orthonormal.
        sample: of each tensor by its number, behind its norm; made anew each time, so that one is held at a time.
    """
    if len(lefts) < _LEAST or lefts[0].shape[0] > WIDEST:
        return None
    left, alike = common_directions([each.T for each in lefts], len(lefts[0]))
    rank = len(left)
    if not rank or alike < ALIKE or any(each.shape[1] != rank for each in lefts):
        return None
    left = left.T
    gram = np.zeros((len(left), len(left)))
    cross = np.zeros((len(left), rank))
    for number in range(len(lefts)):
        given = sample(number)
        if given is None:
            return None
        fitted = given.halves[0]
        gram += fitted.a @ fitted.a.T
        cross -= fitted.a @ (left.T @ fitted.change).T
    right = np.asarray(np.linalg.lstsq(gram, cross, rcond=1e-12)[0], np.float64)

    def predict(given: Sample) -> Values:
        return given.a - left @ (right.T @ given.a)

    rule = Rule(operator=OBLIQUE, columns=left, strength=None, predict=predict)
    fits = []
    for number in range(len(lefts)):
        given = sample(number)
        assert given is not None
        fits.append(fit_of(rule, given.halves[1]))
    return fits, left, right
