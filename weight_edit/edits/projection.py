"""Directional ablation `x -> x - s V V^T x` (arXiv 2406.11717), and orthonormal rows for it."""

import numpy as np

from weight_edit.edits.low_rank import LowRankMap
from weight_edit.utils.arrays import Floats, Numbers, as_float64
from weight_edit.utils.fixed_decompositions import qr, svd
from weight_edit.utils.fixed_sums import inner_products, product, row_squares


def orthonormal_rows(rows: Numbers, tolerance: float = 1e-6) -> Floats:
    """Orthonormal rows with the span of `rows`, shape (rank, d), float64.

    A single row is normalised and keeps its sign. Several keep theirs too (QR with a positive diagonal), except that
    rows which depend on one another are replaced by the leading right singular vectors.

    Args:
        rows: shape (k, d), a numpy array or a torch tensor of any floating dtype.
        tolerance: singular values below this fraction of the largest count as zero.
    """
    given = as_float64(rows)
    if not given.any():
        return given[:0]
    norms = np.sqrt(row_squares(given))[:, None]
    scaled = given / np.maximum(norms, norms.max() * tolerance)
    q, r = qr(scaled.T)
    _, values, right = svd(r.T)
    rank = int(np.count_nonzero(values > tolerance * values[0]))
    return as_float64(q.T) if rank == len(given) else product(right[:rank], q.T)


def ablation(directions: Numbers, strength: float = 1.0) -> LowRankMap:
    """The map `x -> x - s V V^T x` that projects off the span of the directions.

    A strength below 1 projects by that fraction.

    Several directions are removed together, which is why they must be orthonormal: one after the other leaks.

    Args:
        directions: orthonormal rows, shape (k, d_model), a numpy array or a torch tensor.
        strength: 1 removes the component, 2 reflects it, 0 changes nothing.

    Raises:
        ValueError: when the rows are not orthonormal to 1e-4.
    """
    rows = as_float64(directions)
    worst = float(np.abs(inner_products(rows, rows) - np.eye(len(rows))).max(initial=0.0))
    if not worst < 1e-4:
        raise ValueError(f"the rows are not orthonormal (their products differ from 0 and 1 by {worst:.1e})")
    return LowRankMap(left=strength * rows.T, right=rows.T)
