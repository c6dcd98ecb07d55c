"""What is between a guess of stored numbers and the numbers themselves, in few bytes.

Of plain floating numbers it is counted in steps from one storable number to the next. Where the guess is made of a
number whose own steps are larger (the edit took it over a power of two), it can only be right by chance: there the
count is stored for each number. Elsewhere it is nearly always 0, and the exceptions are stored with their places.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.errors import UsageError

Bytes = NDArray[np.uint8]

_MANTISSA = {"BF16": 7, "F16": 10, "F32": 23, "F64": 52}
"""Bits of the fraction by dtype."""

_SURE = 1.02
"""The largest error of a guess, in halves of a step, with which it is nearly always right."""

_ESCAPE = -128
"""Stands for a count that no signed byte holds."""

_DAMAGED = "the pack's corrections do not fit the edited checkpoint; both must be those that were packed"


class Corrections(Protocol):
    """The difference between a guess and the bytes themselves, there and back."""

    def found(self, wanted: Bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> bytes: ...
    def applied(self, payload: bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> Bytes: ...
    def longest(self, size: int) -> int: ...


class ByteCorrections:
    """The difference of each byte, modulo 256: of codes, of scales, and of anything else."""

    def found(self, wanted: Bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> bytes:
        """The payload from which `applied` makes `wanted`; of a guess that is right, none."""
        difference = wanted - guess
        return difference.tobytes() if difference.any() else b""

    def applied(self, payload: bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> Bytes:
        """The bytes that were wanted.

        Raises:
            UsageError: a payload of another length.
        """
        if not payload:
            return guess
        if len(payload) != guess.size:
            raise UsageError(_DAMAGED)
        return guess + np.frombuffer(payload, np.uint8)

    def longest(self, size: int) -> int:
        """The most bytes of a payload for so many bytes."""
        return size


class FloatCorrections:
    """The difference in steps of a floating dtype.

    Args:
        dtype: one of `STORED`.
    """

    def __init__(self, dtype: str) -> None:
        self._stored, self._mantissa = STORED[dtype], _MANTISSA[dtype]
        self._bits = 8 * self._stored.itemsize
        self._unsigned = np.dtype(f"<u{self._stored.itemsize}")

    def found(self, wanted: Bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> bytes:
        """The payload from which `applied` makes `wanted`.

        Args:
            guess, edited: of the same numbers; the guess was made of the latter.
            scale: by what it was multiplied, for each number; None for 1.
        """
        steps = self._places(wanted) - self._places(guess)
        order, sure = self._divided(guess, edited, scale)
        counts = steps[order]
        rest = steps[sure]
        places = np.flatnonzero(rest)
        values = np.concatenate([counts, rest[places]])
        small = np.where((values > _ESCAPE) & (values < -_ESCAPE), values, _ESCAPE).astype(np.int8)
        wide = values[small == _ESCAPE]
        gaps = np.diff(places, prepend=-1).astype("<u4")
        return b"".join(
            [
                np.array([len(places), len(wide)], "<u4").tobytes(),
                small.tobytes(),
                gaps.view(np.uint8).reshape(-1, 4).T.tobytes(),
                wide.astype("<i8").tobytes(),
            ]
        )

    def applied(self, payload: bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> Bytes:
        """The bytes that were wanted.

        Raises:
            UsageError: a payload that does not fit.
        """
        order, sure = self._divided(guess, edited, scale)
        if len(payload) < 8:
            raise UsageError(_DAMAGED)
        count, n_wide = (int(number) for number in np.frombuffer(payload, "<u4", 2))
        n_small = len(order) + count
        if count > len(sure) or n_wide > n_small or len(payload) != 8 + n_small + 4 * count + 8 * n_wide:
            raise UsageError(_DAMAGED)
        values = np.frombuffer(payload, np.int8, n_small, 8).astype(np.int64)
        planes = np.frombuffer(payload, np.uint8, 4 * count, 8 + n_small).reshape(4, count)
        gaps = np.ascontiguousarray(planes.T).view("<u4").reshape(-1).astype(np.int64)
        escaped = np.flatnonzero(values == _ESCAPE)
        if len(escaped) != n_wide:
            raise UsageError(_DAMAGED)
        values[escaped] = np.frombuffer(payload, "<i8", n_wide, 8 + n_small + 4 * count)
        places = np.cumsum(gaps) - 1
        if count and (places[-1] >= len(sure) or not gaps.all()):
            raise UsageError(_DAMAGED)
        steps = np.zeros(guess.size // self._stored.itemsize, np.int64)
        steps[order] = values[: len(order)]
        steps[sure[places]] = values[len(order) :]
        return self._numbers(self._places(guess) + steps)

    def longest(self, size: int) -> int:
        """See `ByteCorrections`."""
        return 8 + 13 * (size // self._stored.itemsize)

    def _divided(
        self, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Places of the numbers whose guess is right by chance alone, by how coarse it is, and of all others."""
        coarser = self._exponents(edited) - self._exponents(guess)
        if scale is None:
            unsure = coarser > 0
        else:
            unsure = np.ldexp(np.abs(scale), np.clip(coarser, -1000, 1000)) > _SURE
        places = np.flatnonzero(unsure)
        return places[np.argsort(coarser[places], kind="stable")], np.flatnonzero(~unsure)

    def _exponents(self, raw: Bytes) -> NDArray[np.int32]:
        """The exponent of each number's step, but for a constant."""
        bits = raw.view(self._unsigned)
        ones = (1 << (self._bits - 1 - self._mantissa)) - 1
        return np.maximum((bits >> self._unsigned.type(self._mantissa)) & self._unsigned.type(ones), 1).astype(np.int32)

    def _places(self, raw: Bytes) -> NDArray[np.int64]:
        """The place of each number among all that can be stored, in the order of their size."""
        bits = raw.view(self._unsigned).astype(np.uint64)
        size = (bits & np.uint64((1 << (self._bits - 1)) - 1)).astype(np.int64)
        return np.where(bits >> np.uint64(self._bits - 1), -1 - size, size)

    def _numbers(self, places: NDArray[np.int64]) -> Bytes:
        """The bytes of the numbers at some places."""
        size = np.where(places < 0, -1 - places, places).astype(np.uint64)
        bits = size | (places < 0).astype(np.uint64) << np.uint64(self._bits - 1)
        return bits.astype(self._unsigned).view(np.uint8)
