"""Codes of four bits, two in a byte: that of the lower half first, or that of the higher one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.tensor.storage import Bytes


def unpack(halves: Bytes, low_first: bool = True) -> Bytes:
    """The codes of bytes, one each, twice as many along the last axis."""
    codes = np.empty((*halves.shape[:-1], 2 * halves.shape[-1]), np.uint8)
    low, high = _places(low_first)
    np.bitwise_and(halves, 15, out=codes[..., low::2])
    np.right_shift(halves, 4, out=codes[..., high::2])
    return codes


def pack(codes: Bytes, into: Bytes, low_first: bool = True) -> None:
    """Store codes, (..., n), into bytes, (..., n / 2); the reverse of `unpack`."""
    low, high = _places(low_first)
    np.bitwise_or(codes[..., low::2], codes[..., high::2] << 4, out=into)


def pairs(numbers: NDArray[np.floating[Any]], low_first: bool = True) -> NDArray[np.complex128]:
    """The two numbers of every byte, as one complex number for lookup; zeros keep their signs.

    Args:
        numbers: of each code.
    """
    both = numbers[unpack(np.arange(256, dtype=np.uint8)[:, None], low_first)]
    return both.astype(np.float64).view(np.complex128)[:, 0]


def _places(low_first: bool) -> tuple[int, int]:
    """Which of two codes is in the lower half of a byte, and which in the higher one."""
    return (0, 1) if low_first else (1, 0)
