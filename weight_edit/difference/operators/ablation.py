"""Directional ablation, whole, partial or beyond: `D = -s V V^T A`; a reflection has s = 2.

arXiv 2406.11717, 2606.13720.
"""

import numpy as np

from weight_edit.difference.operators.fit import OperatorFit, fitted
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample


def ablation(sample: Sample, columns: Values) -> OperatorFit:
    """The fit of an ablation along given directions, with the strength that fits best.

    Args:
        columns: V, (d, k) orthonormal.
    """
    strength, along = _strength(sample.a, sample.change, columns)
    if strength and columns.shape[1] <= _REFINED:
        # What the given directions leave unexplained along their own coefficients corrects them.
        rest = sample.change + strength * (columns @ along)
        step = np.linalg.lstsq(along @ along.T, along @ rest.T, rcond=None)[0].T / strength
        refined = np.linalg.qr(columns - step)[0]
        better, moved = _strength(sample.a, sample.change, refined)
        if np.linalg.norm(sample.change + better * (refined @ moved)) < np.linalg.norm(rest):
            columns, strength, along = refined, better, moved
    return fitted("ablation", sample, sample.a - strength * (columns @ along), columns, strength)


_REFINED = 32


def _strength(a: Values, change: Values, columns: Values) -> tuple[float, Values]:
    """The strength that fits best, and V^T A."""
    along = columns.T @ a
    square = float(np.vdot(along, along))
    return (-float(np.vdot(columns.T @ change, along)) / square if square else 0.0), along


def ablation_and_constant(sample: Sample, columns: Values) -> OperatorFit:
    """The fit of an ablation and one vector that is added to all vectors, as to an embedding's rows.

    The constant is the fact `constant`, (d,).
    """
    a, change = sample.a, sample.change
    means = a.mean(1, keepdims=True), change.mean(1, keepdims=True)
    strength, _ = _strength(a - means[0], change - means[1], columns)
    constant = means[1] + strength * (columns @ (columns.T @ means[0]))
    predicted = a - strength * (columns @ (columns.T @ a)) + constant
    return fitted("ablation", sample, predicted, columns, strength, constant=constant[:, 0])


def addition(sample: Sample) -> OperatorFit:
    """The fit of one vector added to all vectors: `D = c 1^T`."""
    constant = sample.change.mean(1, keepdims=True)
    return fitted("addition", sample, sample.a + constant, constant=constant[:, 0])
