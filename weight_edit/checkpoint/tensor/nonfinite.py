"""NaN and infinities in stored bytes, found by their bits without decoding."""

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Bytes

_EXPONENTS: Mapping[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF << 52),
    "F32": ("<u4", 0xFF << 23),
    "C64": ("<u4", 0xFF << 23),
    "F16": ("<u2", 0x1F << 10),
    "BF16": ("<u2", 0xFF << 7),
    "F8_E5M2": ("u1", 0x7C),
}
"""Formats whose all-ones exponent means NaN or infinity: (integer type, exponent's mask).

Each half of a complex number counts on its own.
"""

_PATTERNS: Mapping[str, tuple[int, int]] = {
    "F8_E4M3": (0x7F, 0x7F),
    "F8_E8M0": (0xFF, 0xFF),
    "F8_E4M3FNUZ": (0xFF, 0x80),
    "F8_E5M2FNUZ": (0xFF, 0x80),
}
"""Formats with a single NaN pattern: (mask, pattern)."""


def count_non_finite(raw: Bytes, dtype: str) -> int:
    """The number of NaN and infinite values; 0 for formats that have neither.

    Args:
        raw: whole numbers, as bytes.
        dtype: safetensors' name.
    """
    if dtype in _EXPONENTS:
        unsigned, mask = _EXPONENTS[dtype]
        bits = raw.view(unsigned)
        # Read as an integer without a sign, a negative number whose exponent is all ones is larger than any other
        # number, and read as one with a sign, a positive one is. Two maxima cost a fifth of looking at each number.
        sign = mask | 1 << (8 * bits.itemsize - 1)
        if not bits.size or (bits.max() < sign and bits.view(unsigned.replace("u", "i")).max() < mask):
            return 0
        return int(np.count_nonzero((bits & bits.dtype.type(mask)) == mask))
    if dtype in _PATTERNS:
        mask, pattern = _PATTERNS[dtype]
        return int(np.count_nonzero((raw & np.uint8(mask)) == pattern))
    return 0


class Census:
    """A count of the non-finite values of a file's tensors, read in pieces of any length.

    A single number that is infinite is a limit that was not set, as Gemma 4 keeps them for its sounds, and no damage.

    Attributes:
        found: tensor -> how many of its numbers are NaN or infinite, for those that have any.
    """

    def __init__(self, tensors: Iterable[TensorInfo], begin: int) -> None:
        """Count in the given tensors of one file, beginning at byte `begin`."""
        known = (info for info in tensors if info.dtype in _EXPONENTS or info.dtype in _PATTERNS)
        ordered = sorted(known, key=lambda info: info.begin)
        self._left = deque(info for info in ordered if info.begin + info.size > begin)
        self._at = begin
        self._rest = b""
        self.found: dict[str, int] = {}

    def see(self, raw: Bytes) -> None:
        """Count in the next bytes of the file."""
        end = self._at + len(raw)
        while self._left and self._left[0].begin < end:
            info = self._left[0]
            last = min(end, info.begin + info.size)
            self._count(info, raw[max(self._at, info.begin) - self._at : last - self._at])
            if last < info.begin + info.size:
                break
            self._left.popleft()
        self._at = end

    def _count(self, info: TensorInfo, raw: Bytes) -> None:
        """Count in some bytes of a tensor, whose first and last number may span two pieces."""
        width = np.dtype(_EXPONENTS[info.dtype][0]).itemsize if info.dtype in _EXPONENTS else 1
        bad = 0
        if self._rest:
            missing = width - len(self._rest)
            joined = self._rest + raw[:missing].tobytes()
            raw = raw[missing:]
            self._rest = joined if len(joined) < width else b""
            if len(joined) == width:
                bad += _damaged(info, np.frombuffer(joined, np.uint8))
        whole = len(raw) // width * width
        if not self._rest:
            self._rest = raw[whole:].tobytes()
        bad += _damaged(info, raw[:whole])
        if bad:
            self.found[info.name] = self.found.get(info.name, 0) + bad


def _damaged(info: TensorInfo, raw: Bytes) -> int:
    """The number of non-finite values of a tensor; a scalar infinity is a limit and no damage."""
    bad = count_non_finite(raw, info.dtype)
    if bad and len(raw) == info.size and info.dtype in _EXPONENTS:
        unsigned, mask = _EXPONENTS[info.dtype]
        bits = raw.view(unsigned)
        sign = 1 << (8 * bits.itemsize - 1)
        if bits.size == 1 and int(bits[0]) & ~sign == mask:
            return 0
    return bad
