"""A product of two tall factors, written with as few columns as it needs."""

import numpy as np

from weight_edit.edits.arrays import Floats

TOLERANCE = 2.0**-46
"""Singular values below this part of what the factors could give are what rounding left of zero."""


def lowest_rank(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Factors of the same product `left right^T`; the very same ones where fewer columns would not do.

    New ones have orthonormal columns on the right, and those of the left in the order of their size.

    Args:
        left, right: float64, shape (d, k).

    Returns:
        both of shape (d, rank).
    """
    if not left.size:
        return left, right
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right)
    u, sizes, v = np.linalg.svd(r_left @ r_right.T)
    # Against the columns' own sizes and not the largest singular value: two maps may undo each other, and then
    # rounding is all there is.
    reach = float(np.linalg.norm(left, axis=0) @ np.linalg.norm(right, axis=0))
    rank = int((sizes > TOLERANCE * reach).sum())
    if rank == left.shape[1]:
        return left, right
    return q_left @ (u[:, :rank] * sizes[:rank]), q_right @ v[:rank].T
