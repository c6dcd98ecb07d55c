"""Sums and products of arrays in one written order, so that their last bits are the same on every machine.

Libraries of linear algebra add up in the order that suits a processor and its threads, and fuse multiplications with
additions where it can. One number in some millions is then rounded otherwise, and a file has another SHA-256. Here
every product and every sum is an operation of numpy on whole arrays, number by number, which IEEE 754 rounds in one way
only; none is left to the order in which a library adds up. So are square roots and quotients; exponentials, logarithms
and powers are not, and have no place in what becomes bytes.

Terms are added in `PARTS` runs, one behind the other, entry by entry; what is left is halved until one is left: the
second half is added to the first, and the entry in the middle of an odd number waits.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from weight_edit.utils.arrays import Floats

Real = TypeVar("Real", bound=np.floating[Any])

PARTS = 8
"""Runs of terms that are added before the halving; the bytes of every edit depend on it."""


_BUFFER = 512
"""Numbers that numpy's iterator copies at a time, where it copies."""


@contextmanager
def uncopied() -> Iterator[None]:
    """Within it, numpy takes rows and columns that are repeated as they lie: two to three times as fast.

    Else it copies them into its buffer, where rows are shorter than that. Nothing else hangs on the buffer's size, but
    the speed of operations on arrays of several dtypes, which are slower here.
    """
    before = np.setbufsize(_BUFFER)
    try:
        yield
    finally:
        np.setbufsize(before)


def inner_products(rows: NDArray[Real], vectors: NDArray[Real]) -> NDArray[Real]:
    """`rows vectors^T`: the inner product of each row with each vector.

    Args:
        rows: shape (n, d).
        vectors: shape (k, d).

    Returns:
        shape (n, k).
    """
    found = np.empty((len(rows), len(vectors)), rows.dtype)
    for number, vector in enumerate(vectors):
        found[:, number] = _along_rows(rows, vector)
    return found


def transposed_product(left: NDArray[Real], right: NDArray[Real]) -> NDArray[Real]:
    """`left^T right`, summed over the rows of both.

    Args:
        left: shape (n, k).
        right: shape (n, m).

    Returns:
        shape (k, m).
    """
    found = np.empty((left.shape[1], right.shape[1]), right.dtype)
    for number in range(left.shape[1]):
        found[number] = _over_rows(right, left[:, number, None])
    return found


@uncopied()
def product(left: NDArray[Real], right: NDArray[Real]) -> NDArray[Real]:
    """`left right`; the terms of an entry are added one after the other, as factors of low rank have few of them.

    Args:
        left: shape (n, k).
        right: shape (k, m).

    Returns:
        shape (n, m).
    """
    found = np.zeros((left.shape[0], right.shape[1]), right.dtype)
    for number in range(left.shape[1]):
        found += left[:, number, None] * right[number]
    return found


def row_sums(values: NDArray[Real]) -> NDArray[Real]:
    """The sums over the last axis."""
    flat = values.reshape(-1, values.shape[-1])
    return _along_rows(flat, np.ones(flat.shape[1], flat.dtype)).reshape(values.shape[:-1])


def row_squares(values: NDArray[Real]) -> NDArray[Real]:
    """The sums of squares over the last axis of a matrix."""
    return _along_rows(values, values)


def column_squares(values: NDArray[Real]) -> NDArray[Real]:
    """The sums of squares over the first axis of a matrix."""
    return _over_rows(values, values)


def dot(left: Floats, right: Floats) -> float:
    """The sum of the products of two arrays of one shape, (n, m) or (n,)."""
    if left.ndim == 1:
        left, right = left[None], right[None]
    each = _over_rows(left, right)
    return float(_halved(each, each.size, 1)[0]) if each.size else 0.0


def norm(values: Floats) -> float:
    """The square root of the sum of squares."""
    return math.sqrt(dot(values, values))


@uncopied()
def _along_rows(values: NDArray[Real], factors: NDArray[Real]) -> NDArray[Real]:
    """The sums of values, (n, d), times factors, (d,) or (n, d), over the last axis."""
    count, width = values.shape
    if not values.size:
        return np.zeros(count, values.dtype)
    step = -(-width // PARTS)
    added = values[:, :step] * factors[..., :step]
    room = np.empty_like(added)
    for first in range(step, width, step):
        last = min(first + step, width)
        terms = np.multiply(values[:, first:last], factors[..., first:last], out=room[:, : last - first])
        added[:, : last - first] += terms
    # Turned, so that halves lie one behind the other.
    return _halved(np.ascontiguousarray(added.T).reshape(-1), step, count).copy()


@uncopied()
def _over_rows(values: NDArray[Real], factors: NDArray[Real]) -> NDArray[Real]:
    """The sums of values, (n, m), times factors, (n, 1) or (n, m), over the first axis."""
    count, width = values.shape
    if not values.size:
        return np.zeros(width, values.dtype)
    step = -(-count // PARTS)
    added = np.empty((step, width), values.dtype)
    np.multiply(values[:step], factors[:step], out=added)
    room = np.empty_like(added)
    for first in range(step, count, step):
        last = min(first + step, count)
        added[: last - first] += np.multiply(values[first:last], factors[first:last], out=room[: last - first])
    return _halved(added.reshape(-1), step, width).copy()


def _halved(flat: NDArray[Real], count: int, width: int) -> NDArray[Real]:
    """The sum of `count` rows of `width` numbers that lie one behind the other; they are used up."""
    while count > 1:
        half = count // 2
        flat[: half * width] += flat[(count - half) * width : count * width]
        count -= half
    return flat[:width]
