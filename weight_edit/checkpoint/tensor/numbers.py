"""Plain floating formats between stored bytes and numpy arrays, without torch.

A bfloat16 is the upper half of a float32. Rounding to it is to nearest, ties to even, as IEEE 754 has it.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.tensor.scratch import scratch

STORED: Mapping[str, np.dtype] = {
    "BF16": np.dtype("<u2"),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
"""safetensors' name of a plain floating format -> the numpy dtype of its stored numbers."""

TORCH_NAMES: Mapping[str, str] = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""safetensors' name of a plain floating format -> torch's name, without importing torch."""


def decode(raw: NDArray[np.uint8], dtype: str, wide: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """The numbers stored in `raw`, exactly.

    Args:
        raw: uint8, any number of whole elements.
        dtype: one of `STORED`.
        wide: where they go, flat; new memory when None.
    """
    stored = raw.view(STORED[dtype])
    if wide is None:
        wide = np.empty(stored.size)
    if dtype == "BF16":
        bits = scratch("bits", stored.size, np.uint32)
        np.copyto(bits, stored)
        np.left_shift(bits, 16, out=bits)
        stored = bits.view(np.float32)
    # A signalling NaN becomes a quiet one here, which numpy would warn of; who must not have it refuses it by name.
    with np.errstate(invalid="ignore"):
        np.copyto(wide, stored)
    return wide


def encode(values: NDArray[np.float64], dtype: str, raw: NDArray[np.uint8]) -> None:
    """Store numbers, rounded to nearest, ties to even; those too large become infinite.

    On their way to bfloat16 they pass through float32. That differs from rounding at once, by one unit in the last
    place, where a number lies within 2^-25 of the middle between two bfloat16 numbers.

    Args:
        values: flat, and finite.
        dtype: one of `STORED`.
        raw: where the bytes go.
    """
    stored = raw.view(STORED[dtype])
    with np.errstate(over="ignore"):
        if dtype != "BF16":
            np.copyto(stored, values, casting="unsafe")
            return
        narrow = scratch("narrow", values.size, np.float32)
        np.copyto(narrow, values, casting="unsafe")
    bits = narrow.view(np.uint32)
    # Half a unit less one, and one more where the part that is kept is odd, so that ties go to even.
    odd = scratch("bits", values.size, np.uint32)
    np.right_shift(bits, 16, out=odd)
    np.bitwise_and(odd, 1, out=odd)
    np.add(bits, odd, out=bits)
    np.add(bits, 0x7FFF, out=bits)
    np.right_shift(bits, 16, out=bits)
    np.copyto(stored, bits, casting="unsafe")
