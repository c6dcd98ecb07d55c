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

_SKIP = 255
"""Stands for so many places passed over, where the next exception is not among them."""

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
        places = np.flatnonzero(difference)
        if not len(places):
            return b""
        gaps = _gaps(places)
        return np.array([len(places), len(gaps)], "<u4").tobytes() + gaps + difference[places].tobytes()

    def applied(self, payload: bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> Bytes:
        """The bytes that were wanted.

        Raises:
            UsageError: a payload of another length.
        """
        if not payload:
            return guess
        count, n_gaps = _numbers(payload)
        if len(payload) != 8 + n_gaps + count:
            raise UsageError(_DAMAGED)
        places = _places_of(payload[8 : 8 + n_gaps], count, guess.size)
        found = guess.copy()
        found[places] += np.frombuffer(payload, np.uint8, count, 8 + n_gaps)
        return found

    def longest(self, size: int) -> int:
        """The most bytes of a payload for so many bytes."""
        return 16 + 2 * size + size // _SKIP


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
        gaps = _gaps(places)
        head = np.array([len(places), len(gaps), len(wide)], "<u4").tobytes()
        return b"".join([head, small.tobytes(), gaps, wide.astype("<i8").tobytes()])

    def applied(self, payload: bytes, guess: Bytes, edited: Bytes, scale: NDArray[np.float64] | None) -> Bytes:
        """The bytes that were wanted.

        Raises:
            UsageError: a payload that does not fit.
        """
        order, sure = self._divided(guess, edited, scale)
        count, n_gaps, n_wide = _numbers(payload, 3)
        n_small = len(order) + count
        if count > len(sure) or n_wide > n_small or len(payload) != 12 + n_small + n_gaps + 8 * n_wide:
            raise UsageError(_DAMAGED)
        values = np.frombuffer(payload, np.int8, n_small, 12).astype(np.int64)
        escaped = np.flatnonzero(values == _ESCAPE)
        if len(escaped) != n_wide:
            raise UsageError(_DAMAGED)
        values[escaped] = np.frombuffer(payload, "<i8", n_wide, 12 + n_small + n_gaps)
        places = _places_of(payload[12 + n_small : 12 + n_small + n_gaps], count, len(sure))
        steps = np.zeros(guess.size // self._stored.itemsize, np.int64)
        steps[order] = values[: len(order)]
        steps[sure[places]] = values[len(order) :]
        return self._bytes(self._places(guess) + steps)

    def longest(self, size: int) -> int:
        """See `ByteCorrections`."""
        return 16 + 11 * (size // self._stored.itemsize)

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

    def _bytes(self, places: NDArray[np.int64]) -> Bytes:
        """The bytes of the numbers at some places."""
        size = np.where(places < 0, -1 - places, places).astype(np.uint64)
        bits = size | (places < 0).astype(np.uint64) << np.uint64(self._bits - 1)
        return bits.astype(self._unsigned).view(np.uint8)


def _gaps(places: NDArray[np.intp]) -> bytes:
    """Places in rising order as the gaps before them, a byte each, with a `_SKIP` for each so many in one."""
    between = np.diff(places, prepend=-1) - 1
    ends = np.cumsum(between // _SKIP + 1)
    found = np.full(int(ends[-1]) if len(ends) else 0, _SKIP, np.uint8)
    found[ends - 1] = between % _SKIP
    return found.tobytes()


def _places_of(raw: bytes, count: int, most: int) -> NDArray[np.intp]:
    """The places of `_gaps`.

    Raises:
        UsageError: not so many, or one of `most` and above.
    """
    gaps = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(gaps != _SKIP)
    if len(ends) != count or (gaps.size and gaps[-1] == _SKIP):
        raise UsageError(_DAMAGED)
    places = np.cumsum(gaps.astype(np.int64))[ends] + np.arange(count)
    if count and places[-1] >= most:
        raise UsageError(_DAMAGED)
    return places


def _numbers(payload: bytes, count: int = 2) -> list[int]:
    """The first numbers of a payload.

    Raises:
        UsageError: it is shorter than that.
    """
    if len(payload) < 4 * count:
        raise UsageError(_DAMAGED)
    return [int(number) for number in np.frombuffer(payload, "<u4", count)]
