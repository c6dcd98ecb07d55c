"""NaN and infinities in stored bytes, found by their bits, without making numbers of them."""

from collections.abc import Mapping

import numpy as np

from weight_edit.checkpoint.storage import Bytes

_EXPONENTS: Mapping[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "C64": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
    "F8_E5M2": ("u1", 0x7C),
}
"""Formats in which all bits of the exponent set mean NaN or infinity; a complex number counts once for each half."""

_PATTERNS: Mapping[str, tuple[int, int]] = {
    "F8_E4M3": (0x7F, 0x7F),
    "F8_E8M0": (0xFF, 0xFF),
    "F8_E4M3FNUZ": (0xFF, 0x80),
    "F8_E5M2FNUZ": (0xFF, 0x80),
}
"""Formats with a single pattern for NaN: which bits count, and what they are."""


def count_non_finite(raw: Bytes, dtype: str) -> int:
    """How many of some numbers are NaN or infinite; 0 for integers and for formats that have neither.

    Args:
        raw: whole numbers, as bytes.
        dtype: safetensors' name.
    """
    if dtype in _EXPONENTS:
        unsigned, mask = _EXPONENTS[dtype]
        bits = raw.view(unsigned)
        return int(np.count_nonzero((bits & bits.dtype.type(mask)) == mask))
    if dtype in _PATTERNS:
        mask, pattern = _PATTERNS[dtype]
        return int(np.count_nonzero((raw & np.uint8(mask)) == pattern))
    return 0
