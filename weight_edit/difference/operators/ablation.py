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
    along = columns.T @ sample.a
    square = float(np.vdot(along, along))
    strength = -float(np.vdot(columns.T @ sample.change, along)) / square if square else 0.0
    return fitted("ablation", sample, sample.a - strength * (columns @ along), columns, strength)


def ablation_and_constant(sample: Sample, columns: Values) -> OperatorFit:
    """The fit of an ablation and one vector that is added to all vectors, as to an embedding's rows.

    The constant is the fact `constant`, (d,).
    """
    a, change = sample.a, sample.change
    means = a.mean(1, keepdims=True), change.mean(1, keepdims=True)
    along = columns.T @ (a - means[0])
    square = float(np.vdot(along, along))
    strength = -float(np.vdot(columns.T @ (change - means[1]), along)) / square if square else 0.0
    constant = means[1] + strength * (columns @ (columns.T @ means[0]))
    predicted = a - strength * (columns @ (columns.T @ a)) + constant
    return fitted("ablation", sample, predicted, columns, strength, constant=constant[:, 0])


def addition(sample: Sample) -> OperatorFit:
    """The fit of one vector added to all vectors: `D = c 1^T`."""
    constant = sample.change.mean(1, keepdims=True)
    return fitted("addition", sample, sample.a + constant, constant=constant[:, 0])
