"""Between stored bytes and numbers, without torch: the four plain floating formats, as numpy arrays.

A bfloat16 is the upper half of a float32. Rounding to it is to nearest, ties to even, as IEEE 754 has it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

STORED: Mapping[str, np.dtype] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
"""The plain floating formats by safetensors' names, and what one number is on disk."""


def decode(raw: NDArray[np.uint8], dtype: str, wide: NDArray | None = None) -> NDArray:
    """The numbers whose bytes are `raw`, flat: float32, or float64 for F64. Exact.

    Args:
        raw: uint8, any number of whole elements.
        dtype: one of `STORED`.
        wide: where to put them, a flat float32 (or float64) array of that length; new memory when None.
    """
    stored = raw.view(STORED[dtype])
    if wide is None:
        wide = np.empty(stored.shape, np.float64 if dtype == "F64" else np.float32)
    if dtype == "BF16":
        bits = wide.view(np.uint32)
        np.copyto(bits, stored)
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(wide, stored)
    return wide


def encode(values: NDArray, dtype: str, raw: NDArray[np.uint8]) -> None:
    """Store numbers, rounded to nearest, ties to even.

    Float64 values pass through float32 on their way to bfloat16, which can differ from a direct rounding by one unit
    in the last place where a value lies within 2^-25 of the middle between two bfloat16 numbers. Overflow gives
    infinities, as IEEE 754 has it; the caller looks for them.

    Args:
        values: flat, float32 or float64. Left as it is.
        dtype: one of `STORED`.
        raw: uint8, where the bytes go.
    """
    stored = raw.view(STORED[dtype])
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != "BF16":
            np.copyto(stored, values, casting="unsafe")
            return
        bits = values.astype(np.float32).view(np.uint32)
    # Half a unit less one, and one more where the kept part is odd: ties go to even.
    odd = bits >> np.uint32(16)
    np.bitwise_and(odd, 1, out=odd)
    np.add(bits, odd, out=odd)
    np.add(odd, 0x7FFF, out=odd)
    np.right_shift(odd, 16, out=odd)
    not_a_number = np.isnan(values) if np.isnan(values.max(initial=0.0)) else None
    np.copyto(stored, odd, casting="unsafe")
    if not_a_number is not None:
        # The addition can carry a NaN's bits over into an infinity's or a zero's.
        stored[not_a_number] = 0x7FC0
