"""A difference of low rank whose factors have nothing to do with A: a merged LoRA."""

import numpy as np

from weight_edit.difference.operators.fit import OperatorFit, fitted, leading
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

LIMIT = 128
"""The largest rank that is looked for."""


def low_rank(sample: Sample) -> OperatorFit | None:
    """The fit of the smallest rank that leaves rounding alone; None where that is more than a third of the full one."""
    most = min(LIMIT, min(sample.a.shape) // 3)
    if most < 1:
        return None
    left, values = leading(sample.change, most + 1)
    rank = int(np.count_nonzero(values > max(sample.edge, 1e-6 * values[0])))
    if not 0 < rank <= most:
        return None
    v = left[:, :rank]
    return fitted("low rank", sample, sample.a + v @ (v.T @ sample.change), v, None, rank=rank)


def rank_of(sample: Sample, limit: int = LIMIT) -> tuple[int, Values]:
    """How many singular values of D are above rounding, at most `limit`, and their left vectors."""
    left, values = leading(sample.change, min(limit, *sample.a.shape))
    rank = int(np.count_nonzero(values > max(sample.edge, 1e-6 * values[0])))
    return rank, left[:, : max(1, rank)]
