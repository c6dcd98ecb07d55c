"""Directions that are nearest to those of many tensors."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.pairs import Values
from weight_edit.difference.shared import Sketch

ALIKE = 0.98
"""The least mean squared cosine with common directions, for tensors to share them.

Chance gives k / d. Directions that are found in rounding's noise are off by less (a fifth of a full ablation in
bfloat16, 2048 wide: .996); what is below is another direction for each tensor, or one that moves from layer to layer.
"""


def common_directions(rows: Sequence[NDArray[np.floating]], width: int) -> tuple[Values, float]:
    """The directions nearest to all, as many as most have, (k, d) orthonormal, and the mean squared cosine with them.

    In fixed memory, however many tensors there are.

    Args:
        rows: of each tensor, (k, d) orthonormal.
    """
    counts = [len(each) for each in rows]
    count = int(np.median(counts)) if counts else 0
    sketch = Sketch()
    for each in rows:
        if len(each):
            sketch.add(each.T, np.full(len(each), len(each) ** -0.5))
    found = sketch.directions
    if not count or found is None:
        return np.zeros((0, width)), 0.0
    common = found[:, :count].T
    largest = np.abs(common).argmax(1)
    signs = np.sign(common[np.arange(len(common)), largest])
    return np.asarray(common * signs[:, None]), mean_squared_cosine(rows, [common] * len(rows))


def mean_squared_cosine(rows: Sequence[NDArray[np.floating]], others: Sequence[NDArray[np.floating]]) -> float:
    """The mean squared cosine of each tensor's directions, (k, d) orthonormal, with others of the same tensor."""
    pairs = [(own, other) for own, other in zip(rows, others, strict=True) if len(own)]
    return sum(float(np.linalg.norm(other @ own.T) ** 2) / len(own) for own, other in pairs) / len(rows)
