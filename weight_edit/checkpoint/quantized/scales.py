"""Scales of quantised numbers: read, checked, and stored without rounding down.

A scale that is stored a little too small would push the largest number of its block beyond the largest code.
"""

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.tensor.numbers import STORED, decode, encode
from weight_edit.checkpoint.tensor.storage import Bytes
from weight_edit.errors import UsageError

BIAS = 127
"""The bias of e8m0: a code is the exponent of a power of two plus this; 255 is NaN."""

E8M0 = "F8_E8M0"
"""The dtype of e8m0 codes."""

POWERS = (E8M0, "U8")
"""Dtypes of e8m0 codes: its own, and bytes, as checkpoints wrote them before it existed."""

SCALES = ("F32", "BF16", "F16", *POWERS)
"""The dtypes of scales."""


def item_size(dtype: str) -> int:
    """The size of one scale in bytes."""
    return 1 if dtype in POWERS else STORED[dtype].itemsize


def read_scales(raw: Bytes, dtype: str) -> NDArray[np.float64]:
    """The scales stored in `raw`, flat and exact; NaN for the e8m0 code 255.

    Args:
        raw: uint8, whole scales.
        dtype: one of `SCALES`.
    """
    if dtype in POWERS:
        return _E8M0[raw]
    return decode(raw, dtype).astype(np.float64)


def check_scales(scales: NDArray[np.float64], name: str) -> None:
    """Refuse negative or non-finite scales; zero passes, as some quantisers write it for zeros.

    Raises:
        UsageError: a scale is negative or not finite.
    """
    bad = int(scales.size - np.count_nonzero((scales >= 0) & (scales < np.inf)))
    if bad:
        raise UsageError(
            f"tensor {printable(name)!r} has {bad} scales that are negative or not finite; "
            "the source is damaged, fetch it again"
        )


def store_scales(wanted: NDArray[np.float64], dtype: str, power_of_two: bool = False) -> Bytes:
    """The bytes of the smallest storable scales not below the wanted ones; 1 where 0 is wanted.

    Args:
        wanted: any shape, not negative.
        dtype: one of `SCALES`.
        power_of_two: whether scales are whole powers of two in spite of a dtype that has others.

    Returns:
        uint8, flat.
    """
    flat = np.where(wanted == 0, 1.0, wanted).reshape(-1)
    # Below the normal numbers of float32, kernels may take a scale for zero; an e8m0 code is never zero.
    flat = np.maximum(flat, 2.0 ** (-BIAS if dtype in POWERS else 1 - BIAS))
    if power_of_two or dtype in POWERS:
        fraction, exponent = np.frexp(flat)
        exponent = exponent - (fraction == 0.5)
        if dtype in POWERS:
            return np.clip(exponent + BIAS, 0, 254).astype(np.uint8)
        flat = np.ldexp(1.0, exponent)
    raw = np.empty(flat.size * item_size(dtype), np.uint8)
    encode(flat, dtype, raw)
    # The numbers of a format are in the order of their bits: the next code is the next number.
    bits = raw.view(f"<u{item_size(dtype)}")
    bits += (read_scales(raw, dtype) < flat).astype(bits.dtype)
    return raw


_E8M0 = np.ldexp(1.0, np.arange(256) - BIAS)
_E8M0[255] = np.nan
