"""QR and singular values of small or slender matrices with sums in one written order (see `fixed_sums`).

LAPACK's are as accurate, and their last bits are a matter of the processor.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from weight_edit.utils.arrays import Floats
from weight_edit.utils.fixed_sums import inner_products, norm, row_squares, row_sums, transposed_product

_PASSES = 4
"""How often a column is made orthogonal to those before it; one that shrinks each time depends on them."""

_ORTHOGONAL = 2.0**-48
"""The cosine below which two vectors count as orthogonal."""

_NOTHING = 2.0**-60
"""The length, as a share of the longest row's, below which a row is what rounding left, and is not turned."""

_SWEEPS = 60
"""More than any matrix needs; they are ten for a hundred vectors."""


def qr(columns: Floats) -> tuple[Floats, Floats]:
    """Orthonormal columns Q and an upper triangle R with `Q R = columns`, by Gram and Schmidt, repeated as needed.

    Args:
        columns: shape (d, k).

    Returns:
        Q of shape (d, k) and R of shape (k, k). The diagonal of R is not negative; where it is 0, because a column
        depends on those before it, Q has a column of zeros.
    """
    count = columns.shape[1]
    found, upper = np.zeros((count, len(columns))), np.zeros((count, count))
    for number in range(count):
        rest = np.ascontiguousarray(columns[:, number])
        before = norm(rest)
        for _ in range(_PASSES):
            along = inner_products(found[:number], rest[None])
            rest = rest - transposed_product(along, found[:number])[0]
            upper[:number, number] += along[:, 0]
            after = norm(rest)
            # What shrank a lot has lost digits, and with them it is no longer orthogonal.
            if after > before / 2:
                upper[number, number] = after
                found[number] = rest / after
                break
            before = after
    return np.ascontiguousarray(found.T), upper


def svd(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """The singular value decomposition `U diag(sizes) V`, by Jacobi's rotations of the rows.

    Args:
        matrix: shape (k, n).

    Returns:
        U of shape (k, k), orthogonal; the singular values, (k,), descending; and V of shape (k, n), whose rows are
        orthonormal where the values are not 0, and zeros where they are.
    """
    rows, turned = matrix.copy(), np.eye(len(matrix))
    least = _NOTHING * float(np.sqrt(row_squares(rows)).max(initial=0.0))
    for _ in range(_SWEEPS):
        moved = [_rotate(rows, turned, pairs, least) for pairs in _rounds(len(rows))]
        if not any(moved):
            break
    sizes = np.sqrt(row_squares(rows))
    order = np.argsort(-sizes, kind="stable")
    sizes, rows = sizes[order], rows[order]
    unit = np.zeros_like(rows)
    np.divide(rows, sizes[:, None], out=unit, where=sizes[:, None] > 0)
    return np.ascontiguousarray(turned[order].T), sizes, unit


Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Numbers of rows, and of those that they are paired with."""


def _rounds(count: int) -> Iterator[Pairs]:
    """All pairs of so many rows, in rounds in which each row is in one pair at most: a tournament."""
    places = list(range(count + count % 2))
    for _ in range(len(places) - 1):
        half = len(places) // 2
        pairs = [(a, b) for a, b in zip(places[:half], places[: half - 1 : -1], strict=True) if max(a, b) < count]
        if pairs:
            first, second = np.array(pairs, np.intp).T
            yield first, second
        places = [places[0], places[-1], *places[1:-1]]


def _rotate(rows: Floats, turned: Floats, pairs: Pairs, least: float) -> bool:
    """Make pairs of rows orthogonal by rotations, and turn another matrix with them; whether any was not yet.

    Args:
        least: the length up to which rows are left alone.
    """
    first, second = pairs
    a, b = rows[first], rows[second]
    sizes, others, along = row_squares(a), row_squares(b), row_sums(a * b)
    lengths, other_lengths = np.sqrt(sizes), np.sqrt(others)
    moves = (np.abs(along) > _ORTHOGONAL * lengths * other_lengths) & (np.minimum(lengths, other_lengths) > least)
    if not moves.any():
        return False
    # The smaller of the two angles after which they are orthogonal.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        cotangent = (others - sizes) / (2 * along)
        tangent = np.copysign(1.0, cotangent) / (np.abs(cotangent) + np.sqrt(1 + cotangent * cotangent))
    tangent = np.where(moves, tangent, 0.0)
    cosine = 1 / np.sqrt(1 + tangent * tangent)
    sine = cosine * tangent
    for held in (rows, turned):
        a, b = held[first], held[second]
        held[first] = cosine[:, None] * a - sine[:, None] * b
        held[second] = sine[:, None] * a + cosine[:, None] * b
    return True
