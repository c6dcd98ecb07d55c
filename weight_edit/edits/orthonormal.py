"""An orthonormal basis of what some rows span."""

import torch
from torch import Tensor


def orthonormal_rows(rows: Tensor, tolerance: float = 1e-6) -> Tensor:
    """Orthonormal rows with the span of `rows`, shape (rank, d), in float64.

    A single row is normalised and keeps its sign. Several keep theirs too (QR with a positive diagonal), except that
    rows which depend on one another are replaced by the leading right singular vectors.

    Args:
        rows: shape (k, d), any floating dtype.
        tolerance: singular values below this fraction of the largest count as zero.
    """
    rows = rows.double()
    if rows.shape[0] == 0 or not rows.any():
        return rows[:0]
    norms = rows.norm(dim=-1, keepdim=True)
    scaled = rows / norms.clamp_min(norms.max() * tolerance)
    _, values, right = torch.linalg.svd(scaled, full_matrices=False)
    rank = int((values > tolerance * values[0]).sum())
    if rank < len(rows):
        return right[:rank]
    q, r = torch.linalg.qr(scaled.T)
    return (q * r.diagonal().sign()).T.contiguous()
