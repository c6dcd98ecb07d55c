"""Norm-preserving ablation by vectors (jim-plus/llm-abliteration): each vector that a writer writes keeps its length.

`b_j = |a_j| m_j / |m_j|` with `m = A - s V V^T A`: off the directions every vector is only scaled.
"""

import numpy as np

from weight_edit.difference.operators.fit import Rule, leading
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

_ROUNDS = 60
_STILL = 1e-15


def vector_norms_kept(sample: Sample, columns: Values) -> Rule:
    """The ablation that keeps vectors' lengths.

    Args:
        columns: first guess of V, (d, k); improved in turns with the vectors' factors.
    """
    v, count = columns, columns.shape[1]
    a, b = sample.a, sample.b
    factors = np.ones(a.shape[1])
    for _ in range(_ROUNDS):
        off = a - v @ (v.T @ a)
        squares = np.einsum("ij,ij->j", off, off)
        factors = np.divide(np.einsum("ij,ij->j", off, b), squares, out=np.ones_like(squares), where=squares > 0)
        before = v
        v = leading(b - a * factors, count)[0]
        if count - np.linalg.norm(before.T @ v) ** 2 < _STILL * count:
            break
    along, after = (v.T @ a) * factors, v.T @ b
    square = float(np.vdot(along, along))
    strength = 1 - float(np.vdot(after, along)) / square if square else 0.0

    def predict(given: Sample) -> Values:
        mapped = given.a - strength * (v @ (v.T @ given.a))
        lengths = np.linalg.norm(mapped, axis=0)
        whole = np.linalg.norm(given.a, axis=0)
        return mapped * np.divide(whole, lengths, out=np.zeros_like(lengths), where=lengths > 0)

    return Rule(operator="norm-preserving ablation (vectors)", columns=v, strength=strength, predict=predict)
