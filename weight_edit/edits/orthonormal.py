"""An orthonormal basis of what some rows span."""

import numpy as np

from weight_edit.edits.arrays import Floats, Numbers, floats


def orthonormal_rows(rows: Numbers, tolerance: float = 1e-6) -> Floats:
    """Orthonormal rows with the span of `rows`, shape (rank, d), float64.

    A single row is normalised and keeps its sign. Several keep theirs too (QR with a positive diagonal), except that
    rows which depend on one another are replaced by the leading right singular vectors.

    Args:
        rows: shape (k, d), a numpy array or a torch tensor of any floating dtype.
        tolerance: singular values below this fraction of the largest count as zero.
    """
    given = floats(rows)
    if not given.any():
        return given[:0]
    norms = np.linalg.norm(given, axis=-1, keepdims=True)
    scaled = given / np.maximum(norms, norms.max() * tolerance)
    _, values, right = np.linalg.svd(scaled, full_matrices=False)
    rank = int((values > tolerance * values[0]).sum())
    if rank < len(given):
        return floats(right[:rank])
    q, r = np.linalg.qr(scaled.T)
    return floats((q * np.sign(np.diagonal(r))).T)
