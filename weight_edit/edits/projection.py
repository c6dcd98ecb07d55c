"""The projection off some directions: directional ablation (arXiv 2406.11717), `x -> x - s V V^T x`."""

import numpy as np

from weight_edit.edits.arrays import Numbers, floats
from weight_edit.edits.low_rank import LowRankMap


def ablation(directions: Numbers, strength: float = 1.0) -> LowRankMap:
    """The projection off the span of the directions; a fraction of it for a strength below 1.

    Several directions are removed together, which is why they must be orthonormal: one after the other leaks.

    Args:
        directions: orthonormal rows, shape (k, d_model), a numpy array or a torch tensor.
        strength: 1 removes the component, 2 reflects it, 0 changes nothing.

    Raises:
        ValueError: when the rows are not orthonormal to 1e-4.
    """
    rows = floats(directions)
    worst = float(np.abs(rows @ rows.T - np.eye(len(rows))).max(initial=0.0))
    if not worst < 1e-4:
        raise ValueError(f"the rows are not orthonormal (their products differ from 0 and 1 by {worst:.1e})")
    return LowRankMap(left=strength * rows.T, right=rows.T)
