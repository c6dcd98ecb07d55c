"""Directional ablation, whole, partial or beyond: `D = -s V V^T A`; a reflection has s = 2.

arXiv 2406.11717, 2606.13720.
"""

import numpy as np

from weight_edit.difference.operator_names import WITH_CONSTANT
from weight_edit.difference.operators.fit import Rule, leading
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample
from weight_edit.difference.shared import CANDIDATES


def ablation(sample: Sample, columns: Values, refined: bool = True) -> Rule:
    """The ablation along given directions, with the strength that fits best.

    Args:
        columns: V, (d, k) orthonormal.
        refined: whether the directions themselves are fitted, too.
    """
    strength, along = _strength(sample.a, sample.change, columns)
    if refined and strength and columns.shape[1] <= MOST:
        # What the given directions leave unexplained along their own coefficients corrects them.
        rest = sample.change + strength * (columns @ along)
        step = np.linalg.lstsq(along @ along.T, along @ rest.T, rcond=None)[0].T / strength
        corrected = np.linalg.qr(columns - step)[0]
        better, moved = _strength(sample.a, sample.change, corrected)
        if np.linalg.norm(sample.change + better * (corrected @ moved)) < np.linalg.norm(rest):
            columns, strength = corrected, better

    def predict(given: Sample) -> Values:
        return given.a - strength * (columns @ (columns.T @ given.a))

    return Rule(operator="ablation", columns=columns, strength=strength, predict=predict)


MOST = CANDIDATES
"""The most directions of one tensor that are looked for, as many as many tensors are asked for; they are kept."""


def _strength(a: Values, change: Values, columns: Values) -> tuple[float, Values]:
    """The strength that fits best, and V^T A."""
    along = columns.T @ a
    square = float(np.vdot(along, along))
    return (-float(np.vdot(columns.T @ change, along)) / square if square else 0.0), along


def ablation_and_constant(sample: Sample, count: int) -> Rule:
    """The ablation along some directions, and one vector that is added to all vectors, as to an embedding's rows.

    The constant is the fact `constant`, (d,).

    Args:
        count: how many directions; they are the leading ones of the changes about their mean.
    """
    a, change = sample.a, sample.change
    means = a.mean(1, keepdims=True), change.mean(1, keepdims=True)
    columns = leading(change - means[1], count)[0]
    strength, _ = _strength(a - means[0], change - means[1], columns)
    constant = means[1] + strength * (columns @ (columns.T @ means[0]))

    def predict(given: Sample) -> Values:
        return given.a - strength * (columns @ (columns.T @ given.a)) + constant

    return Rule(
        operator=WITH_CONSTANT,
        columns=columns,
        strength=strength,
        predict=predict,
        facts={"constant": constant[:, 0]},
    )


def addition(sample: Sample) -> Rule:
    """One vector added to all vectors: `D = c 1^T`; the fact `constant` is c."""
    constant = sample.change.mean(1, keepdims=True)
    return Rule(
        operator="addition",
        columns=np.zeros((sample.width, 0)),
        strength=None,
        predict=lambda given: given.a + constant,
        facts={"constant": constant[:, 0]},
    )
