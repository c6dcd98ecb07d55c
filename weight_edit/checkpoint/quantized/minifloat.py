"""Floating formats of 8 bits and less (e4m3, e2m1) to and from float64, without torch.

Neither has infinities. What is too large is stored as the largest number. e4m3 has one NaN per sign (the "fn" variant).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 14
"""Numbers encoded at a time, so that all of their copies stay in a core's cache."""

_EXPONENT = np.int64(0x7FF << 52)
_FRACTION = 52


@dataclass(frozen=True)
class MiniFloat:
    """A format with one sign bit, exponent bits and fraction bits.

    Attributes:
        bits: of a code, the sign included.
        fraction: bits of the fraction.
        least: exponent of the smallest normal number; numbers below it have its step.
        largest: the largest number.
        nan: the code (without sign) from which on codes are no numbers, or None.
    """

    bits: int
    fraction: int
    least: int
    largest: float
    nan: int | None = None

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """The number of every code."""
        half = 1 << (self.bits - 1)
        code = np.arange(half)
        exponent, fraction = code >> self.fraction, code & ((1 << self.fraction) - 1)
        significand = fraction + np.where(exponent > 0, 1 << self.fraction, 0)
        found = np.ldexp(significand.astype(np.float64), np.maximum(exponent, 1) - 1 + self.least - self.fraction)
        if self.nan is not None:
            found[self.nan :] = np.nan
        return np.concatenate([found, -found])

    @cached_property
    def above(self) -> NDArray[np.uint8]:
        """Code -> the code of the next larger number; the largest maps to itself."""
        half = 1 << (self.bits - 1)
        codes = np.arange(2 * half)
        end = (self.nan or half) - 1
        positive = np.minimum(codes[:half] + 1, end)
        # The next above the smallest negative number is 0, and above -0 it is as above 0.
        negative = np.where(codes[:half] == 1, 0, codes[half:] - 1)
        negative[0] = 1
        return np.concatenate([positive, negative]).astype(np.uint8)

    @cached_property
    def below(self) -> NDArray[np.uint8]:
        """Code -> the code of the next smaller number; the smallest maps to itself."""
        half = 1 << (self.bits - 1)
        mirrored = np.roll(self.above, half)
        return np.where(mirrored == 0, 0, mirrored ^ half).astype(np.uint8)

    @cached_property
    def either(self) -> NDArray[np.uint8]:
        """`below`, and then `above`, in one table."""
        return np.concatenate([self.below, self.above])

    def decode(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The numbers of an array of codes below `2**bits`, in its shape."""
        return self.numbers[codes]

    def encode(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The codes of finite numbers, rounded once, ties to even; too large ones saturate.

        Args:
            values: float64 in row-major order, any shape. It is used up.

        Returns:
            uint8 of the same shape, one code each.
        """
        codes = np.empty(values.shape, np.uint8)
        flat, into = values.reshape(-1), codes.reshape(-1)
        scratch = np.empty(min(_CHUNK, flat.size), np.float64)
        for first in range(0, flat.size, _CHUNK):
            part = flat[first : first + _CHUNK]
            self._encode(part, scratch[: part.size], into[first : first + _CHUNK])
        return codes

    def _encode(self, part: NDArray[np.float64], scratch: NDArray[np.float64], codes: NDArray[np.uint8]) -> None:
        bits, power = part.view(np.int64), scratch.view(np.int64)
        np.right_shift(bits, 64 - self.bits, out=power)
        sign = power.astype(np.uint8)
        sign &= 1 << (self.bits - 1)
        np.abs(part, out=part)
        np.minimum(part, self.largest, out=part)
        # 2^52 steps of a number's own size: added to it, the processor rounds it to whole steps as IEEE 754 has it, and
        # the count of steps is in the lowest bits.
        shift = _FRACTION - self.fraction
        np.maximum(part, 2.0**self.least, out=scratch)
        power &= _EXPONENT
        power += np.int64(shift << _FRACTION)
        part += scratch
        # A code is the exponent, counted from the least, times the steps of a power of two, plus the count of steps.
        power >>= np.int64(shift)
        power += bits
        np.copyto(codes, power, casting="unsafe")
        codes += np.uint8(-((1023 + self.least + shift) << self.fraction) % 256)
        codes |= sign


E4M3 = MiniFloat(bits=8, fraction=3, least=-6, largest=448.0, nan=127)
"""safetensors' F8_E4M3, torch's float8_e4m3fn."""

E2M1 = MiniFloat(bits=4, fraction=1, least=0, largest=6.0)
"""The numbers of MXFP4: 0, 0.5, 1, 1.5, 2, 3, 4 and 6."""
