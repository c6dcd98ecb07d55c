"""A difference of low rank whose factors have nothing to do with A: a merged LoRA."""

import numpy as np

from weight_edit.difference.operators.fit import leading
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

TRACE = 1e-6
"""The share of the largest singular value that the sums of float64 matrices leave of nothing, with much to spare."""

LIMIT = 128
"""The largest rank that is looked for."""


def low_rank(sample: Sample) -> tuple[Values, float] | None:
    """The left directions (d, k) of the smallest rank that leaves rounding alone, and what it leaves, in roundings.

    None where that is more than a third of the full rank.
    """
    most = min(LIMIT, min(sample.a.shape) // 3)
    if most < 1:
        return None
    left, values = leading(sample.change, most + 1)
    rank = int(np.count_nonzero(values > max(sample.edge, TRACE * values[0])))
    if not 0 < rank <= most:
        return None
    v = left[:, :rank]
    rest = max(0.0, sample.square - float(np.linalg.norm(v.T @ sample.change) ** 2))
    return v, rest / sample.noise if sample.noise else float("inf")


def rank_of(sample: Sample, limit: int = LIMIT) -> tuple[int, Values]:
    """How many singular values of D are above rounding, at most `limit`, and their left vectors."""
    if not sample.a.shape[1]:
        return 0, np.zeros((sample.width, 0))
    left, values = leading(sample.change, min(limit, *sample.a.shape))
    rank = int(np.count_nonzero(values > max(sample.edge, TRACE * values[0])))
    return rank, left[:, : max(1, rank)]
