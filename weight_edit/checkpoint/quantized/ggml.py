"""GGML's block formats, as GGUF files store them: Q4_0 to IQ4_XS and MXFP4.

A row of a matrix is a sequence of blocks of 32 or 256 numbers: codes of 2 to 8 bits, packed in planes, and scales, with
minima or without. The scales of a block of 256 are 4 to 8 bits wide and multiply one or two float16 of the whole block.
A number is `offset + step * level`, where offset and step are those of its sub-block; the layouts are those of
https://github.com/ggml-org/ggml, which the package gguf decodes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.grids import Levels, on_levels, on_steps
from weight_edit.checkpoint.quantized.minifloat import E2M1
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes, Strip
from weight_edit.errors import UsageError
from weight_edit.utils.fixed_sums import row_sums

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """Bytes of a block that hold some bits of each code.

    Groups of `width` bytes hold the bits of `width` codes in their lowest places, then those of the next ones.

    Attributes:
        first, last: the bytes.
        bits: of a code, in these bytes.
        at: their place in the code.
        width: bytes of a group.
    """

    first: int
    last: int
    bits: int
    at: int
    width: int

    def read(self, blocks: Bytes, into: Bytes) -> None:
        """Put the bits into codes, (..., numbers), or'ed to what is there."""
        raw = blocks[..., self.first : self.last]
        planes = into.reshape(*into.shape[:-1], -1, 8 // self.bits, self.width)
        groups = raw.reshape(*raw.shape[:-1], -1, self.width)
        mask = np.uint8((1 << self.bits) - 1)
        for plane in range(8 // self.bits):
            part = groups >> np.uint8(plane * self.bits) if plane else groups
            part = part & mask if plane < 8 // self.bits - 1 else part
            planes[..., plane, :] |= part << np.uint8(self.at) if self.at else part

    def write(self, codes: Bytes, blocks: Bytes) -> None:
        """Put the bits of codes, (..., numbers), into blocks."""
        planes = codes.reshape(*codes.shape[:-1], -1, 8 // self.bits, self.width)
        mask = np.uint8((1 << self.bits) - 1)
        found = np.zeros((*planes.shape[:-2], self.width), np.uint8)
        for plane in range(8 // self.bits):
            part = planes[..., plane, :]
            part = (part >> np.uint8(self.at) if self.at else part) & mask
            found |= part << np.uint8(plane * self.bits) if plane else part
        blocks[..., self.first : self.last] = found.reshape(*blocks.shape[:-1], -1)


Grid = tuple[Floats | None, Floats]
"""Offset (None for 0) and step of each sub-block, (..., sub-blocks)."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A block format.

    Attributes:
        numbers, size: of a block; the latter in bytes.
        fields: where the codes are.
        grid: of blocks, (..., size); exact in float32.
        sub: numbers of a sub-block.
        halves: the places of the float16 that multiply all of a block's numbers.
        levels: of uneven steps; None where they are even.
        stored: the stored code of each level, where their order is another.
    """

    numbers: int
    size: int
    fields: tuple[Field, ...]
    grid: Callable[[Bytes], Grid]
    sub: int
    halves: tuple[int, ...] = (0,)
    levels: Levels | None = None
    stored: tuple[int, ...] = ()

    @cached_property
    def last(self) -> int:
        """The largest code."""
        return (1 << sum(field.bits for field in self.fields)) - 1

    @cached_property
    def _orders(self) -> tuple[Bytes, Bytes]:
        """Tables from the order of levels to stored codes, and back."""
        there = np.array(self.stored, np.uint8)
        return there, np.argsort(there).astype(np.uint8)

    def codes(self, blocks: Bytes) -> Bytes:
        """The codes of blocks (..., size) in the order of levels, (..., numbers)."""
        codes = np.zeros((*blocks.shape[:-1], self.numbers), np.uint8)
        for field in self.fields:
            field.read(blocks, codes)
        return self._orders[1][codes] if self.stored else codes

    def put_codes(self, codes: Bytes, blocks: Bytes) -> None:
        """Store codes; all other bytes stay."""
        codes = self._orders[0][codes] if self.stored else codes
        for field in self.fields:
            field.write(codes, blocks)

    def decode(self, blocks: Bytes) -> Floats:
        """The numbers of blocks, (..., numbers), as the package gguf decodes them."""
        offset, step = self.grid(blocks)
        codes = self.codes(blocks).reshape(*step.shape, self.sub)
        values = codes.astype(np.float32) if self.levels is None else self.levels.numbers[codes]
        values *= step[..., None]
        if offset is not None:
            values += offset[..., None]
        return values.reshape(*blocks.shape[:-1], self.numbers)

    def neighbours(self, values: NDArray[np.float64], blocks: Bytes) -> Neighbours:
        """The neighbours of wanted numbers, (..., numbers), on the grid of blocks."""
        offset, step = self.grid(blocks)
        parts = values.reshape(*step.shape, self.sub)
        if self.levels is not None:
            found = on_levels(parts, step[..., None], self.levels)
        else:
            found = on_steps(parts, 0.0 if offset is None else offset[..., None], step[..., None], self.last)
        return found.shaped(values.shape)

    def ends(self, blocks: Bytes) -> tuple[Floats, Floats]:
        """The smallest and the largest number of each sub-block's grid."""
        offset, step = self.grid(blocks)
        lowest, highest = (0, self.last) if self.levels is None else self.levels.numbers[[0, -1]]
        both = [step * np.float32(end) for end in (lowest, highest)]
        if offset is not None:
            both = [end + offset for end in both]
        return np.minimum(*both), np.maximum(*both)

    def stretched(self, blocks: Bytes, values: NDArray[np.float64], must: NDArray[np.bool_] | None = None) -> Bytes:
        """Blocks with larger scales, where wanted numbers beyond the grid's ends would be cut to them.

        A grid stretched by f has errors of rounding f^2 times as large: it is, where these grow by less than what the
        cut numbers are off by. Where no stretch brings a number onto the grid, it is cut.

        Args:
            blocks: (n, size).
            values: wanted numbers, (n, sub-blocks, sub).
            must: in a shape that broadcasts; blocks are stretched for these numbers alone, whatever it costs.
        """
        lowest, highest = (end[..., None].astype(np.float64) for end in self.ends(blocks))
        with np.errstate(divide="ignore", invalid="ignore"):
            factors = np.where(values > highest, values / highest, np.where(values < lowest, values / lowest, 1.0))
        factors = np.where(np.isfinite(factors) & (factors > 1), factors, 1.0)
        if must is None:
            cut = np.square(np.maximum(np.maximum(values - highest, lowest - values), 0))
            saved = row_sums(np.where(factors > 1, cut, 0.0).reshape(len(blocks), -1))
            noise = row_sums((np.square((highest - lowest) / self.last) / 12)[..., 0]) * self.sub
            factor = factors.max((1, 2))
            factor = np.where(saved > (np.square(factor) - 1) * noise, factor, 1.0)
        else:
            factor = np.where(must & (factors <= _WIDEST), factors, 1.0).max((1, 2))
        found = blocks.copy()
        if not self.halves:
            # The logarithm to base 2, rounded up.
            fraction, exponent = np.frexp(factor)
            powers = exponent - (fraction == 0.5)
            found[:, 0] = np.minimum(blocks[:, 0] + powers, _LARGEST_POWER)
            return found
        for place in self.halves:
            # Not below what is wanted: the largest number would be cut again.
            old = _half(blocks, place)[:, 0].astype(np.float64)
            wanted = np.clip(old * factor, -_LARGEST_HALF, _LARGEST_HALF)
            new = wanted.astype(np.float16)
            new = np.where(np.abs(new) < np.abs(wanted), np.nextafter(new, np.copysign(np.float16(np.inf), new)), new)
            new = np.where(factor > 1, new, old).astype("<f2")
            found[:, place : place + 2] = new.view(np.uint8).reshape(-1, 2)
        return found


_WIDEST = 4.0
"""The most that a block is stretched for some of its numbers, whatever that costs the others."""

_LARGEST_HALF = 65504.0
_LARGEST_POWER = 253


def _half(blocks: Bytes, place: int) -> Floats:
    """The float16 at a place of each block, with an axis for sub-blocks."""
    return np.ascontiguousarray(blocks[..., place : place + 2]).view("<f2").astype(np.float32)


def _even(zero: int) -> Callable[[Bytes], Grid]:
    """`d * (code - zero)`."""

    def grid(blocks: Bytes) -> Grid:
        step = _half(blocks, 0)
        return step * np.float32(-zero), step

    return grid


def _with_minimum(blocks: Bytes) -> Grid:
    """`d * code + m`."""
    return _half(blocks, 2), _half(blocks, 0)


def _levels(blocks: Bytes) -> Grid:
    """`d * level`."""
    return None, _half(blocks, 0)


def _powers(blocks: Bytes) -> Grid:
    """`2 ** (e - 127) * level`."""
    return None, np.ldexp(np.float32(1), blocks[..., :1].astype(np.int32) - 127)


def _q2(blocks: Bytes) -> Grid:
    """4 bits each for scale and minimum."""
    both = blocks[..., :16]
    return _half(blocks, 82) * -(both >> 4).astype(np.float32), _half(blocks, 80) * (both & 15).astype(np.float32)


def _q3(blocks: Bytes) -> Grid:
    """6 bits less 32: the low four in 8 bytes, the high two in 4."""
    low, high = blocks[..., 96:104], blocks[..., 104:108]
    scales = np.concatenate([low & 15, low >> 4], -1)
    scales |= np.concatenate([(high >> shift & 3) << 4 for shift in (0, 2, 4, 6)], -1)
    step = _half(blocks, 108) * (scales.astype(np.float32) - 32)
    return step * np.float32(-4), step


def _q45(blocks: Bytes) -> Grid:
    """6 bits each for scale and minimum, in 12 bytes."""
    first, second, third = (blocks[..., place : place + 4] for place in (4, 8, 12))
    scales = np.concatenate([first & 63, third & 15 | (first >> 6) << 4], -1)
    minima = np.concatenate([second & 63, third >> 4 | (second >> 6) << 4], -1)
    return _half(blocks, 2) * -minima.astype(np.float32), _half(blocks, 0) * scales.astype(np.float32)


def _q6(blocks: Bytes) -> Grid:
    """8 bits with a sign."""
    step = _half(blocks, 208) * np.ascontiguousarray(blocks[..., 192:208]).view(np.int8).astype(np.float32)
    return step * np.float32(-32), step


def _iq4(blocks: Bytes) -> Grid:
    """6 bits less 32: the low four in 4 bytes, the high two in 2."""
    low, high = blocks[..., 4:8], np.ascontiguousarray(blocks[..., 2:4]).view("<u2")
    scales = np.stack([low & 15, low >> 4], -1).reshape(*low.shape[:-1], 8)
    scales |= ((high >> np.arange(0, 16, 2, dtype=np.uint16)) & 3).astype(np.uint8) << 4
    return None, _half(blocks, 0) * (scales.astype(np.float32) - 32)


def _nibbles(first: int, last: int, width: int) -> Field:
    return Field(first, last, 4, 0, width)


_IQ4 = Levels(np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32))
_E2M1 = Levels(np.array([*-E2M1.numbers[7::-1], *E2M1.numbers[:8]], np.float32))

KINDS: Mapping[str, Kind] = {
    "Q4_0": Kind(numbers=32, size=18, fields=(_nibbles(2, 18, 16),), grid=_even(8), sub=32),
    "Q4_1": Kind(numbers=32, size=20, fields=(_nibbles(4, 20, 16),), grid=_with_minimum, sub=32, halves=(0, 2)),
    "Q5_0": Kind(numbers=32, size=22, fields=(_nibbles(6, 22, 16), Field(2, 6, 1, 4, 1)), grid=_even(16), sub=32),
    "Q5_1": Kind(
        numbers=32,
        size=24,
        fields=(_nibbles(8, 24, 16), Field(4, 8, 1, 4, 1)),
        grid=_with_minimum,
        sub=32,
        halves=(0, 2),
    ),
    "Q8_0": Kind(
        numbers=32,
        size=34,
        fields=(Field(2, 34, 8, 0, 32),),
        grid=_even(128),
        sub=32,
        # Codes with a sign.
        stored=tuple(np.arange(256) - 128 & 255),
    ),
    "Q2_K": Kind(numbers=256, size=84, fields=(Field(16, 80, 2, 0, 32),), grid=_q2, sub=16, halves=(80, 82)),
    "Q3_K": Kind(
        numbers=256,
        size=110,
        fields=(Field(32, 96, 2, 0, 32), Field(0, 32, 1, 2, 32)),
        grid=_q3,
        sub=16,
        halves=(108,),
    ),
    "Q4_K": Kind(numbers=256, size=144, fields=(_nibbles(16, 144, 32),), grid=_q45, sub=32, halves=(0, 2)),
    "Q5_K": Kind(
        numbers=256,
        size=176,
        fields=(_nibbles(48, 176, 32), Field(16, 48, 1, 4, 32)),
        grid=_q45,
        sub=32,
        halves=(0, 2),
    ),
    "Q6_K": Kind(
        numbers=256,
        size=210,
        fields=(_nibbles(0, 128, 64), Field(128, 192, 2, 4, 32)),
        grid=_q6,
        sub=16,
        halves=(208,),
    ),
    "IQ4_NL": Kind(numbers=32, size=18, fields=(_nibbles(2, 18, 16),), grid=_levels, sub=32, levels=_IQ4),
    "IQ4_XS": Kind(numbers=256, size=136, fields=(_nibbles(8, 136, 16),), grid=_iq4, sub=32, levels=_IQ4),
    "MXFP4": Kind(
        numbers=32,
        size=17,
        fields=(_nibbles(1, 17, 16),),
        grid=_powers,
        sub=32,
        halves=(),
        levels=_E2M1,
        stored=(*range(15, 7, -1), *range(8)),
    ),
}
"""GGML's name of each type whose tensors are edited in place."""

GGML_BLOCKS: Mapping[str, tuple[int, int]] = {name: (kind.numbers, kind.size) for name, kind in KINDS.items()}
"""Type -> (numbers, bytes) of a block."""


class Ggml(Coded):
    """A tensor of GGML blocks, which lie along its last axis.

    Args:
        name: of the tensor.
        kind: one of `KINDS`.
        shape: of the numbers, (rows, columns), or with leading axes; columns a multiple of a block's numbers.
    """

    keeps_grid = True
    widens = True

    def __init__(self, name: str, kind: str, shape: tuple[int, ...]) -> None:
        self.parts = {name: (kind, shape)}
        self.slabs, (self.rows, self.cols) = prod(shape[:-2]), shape[-2:]
        self._kind = KINDS[kind]
        self.col_step = self.packed = self._kind.numbers
        self._row_bytes = self.cols // self._kind.numbers * self._kind.size

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        return {self.name: rows * self._row_bytes}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`.

        Raises:
            UsageError: a scale that is not finite.
        """
        raw = memory("load", (last - first) * self._row_bytes, np.uint8)
        read(self.name, (slab * self.rows + first) * self._row_bytes, raw)
        strip = {self.name: raw}
        self._check(self._blocks(strip, 0, self.cols))
        return strip

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> Bytes:
        """See `Coded`."""
        return self._kind.codes(self._blocks(strip, first, last)).reshape(rows, last - first)

    def put_codes(self, codes: Bytes, first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        self._kind.put_codes(codes.reshape(rows, -1, self._kind.numbers), self._blocks(into, first, first + cols))

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`."""
        wide = memory("decode", rows * (last - first), np.float64).reshape(rows, last - first)
        np.copyto(wide, self._kind.decode(self._blocks(strip, first, last)).reshape(wide.shape))
        return wide

    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """See `Coded`."""
        rows, cols = values.shape
        blocks = self._blocks(strip, first, first + cols)
        found = self._kind.neighbours(values.reshape(rows, -1, self._kind.numbers), blocks)
        flat = found.gap == 0
        if flat.any():
            # All codes mean the same there: they stay, and the bytes with them.
            codes = self._kind.codes(blocks)
            for each in (found.low, found.high):
                np.copyto(each, codes, where=flat)
        return found.shaped(values.shape)

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`. A block's grid is stretched where that saves more than its coarser steps cost."""
        return self._stretch(values, first, into)

    def widen(self, values: NDArray[np.float64], first: int, into: Strip, must: NDArray[np.bool_]) -> int:
        """See `Coded`."""
        return self._stretch(values, first, into, must)

    def _stretch(
        self, values: NDArray[np.float64], first: int, into: Strip, must: NDArray[np.bool_] | None = None
    ) -> int:
        """Stretch the grids of blocks with numbers beyond their ends by over half a step; returns how many."""
        blocks = self._blocks(into, first, first + values.shape[1])
        lowest, highest = self._kind.ends(blocks)
        parts = values.reshape(*lowest.shape, self._kind.sub)
        slack = (highest - lowest) / np.float32(2 * self._kind.last)
        beyond = (parts.max(-1) > highest + slack) | (parts.min(-1) < lowest - slack)
        if must is not None:
            must = np.broadcast_to(must, values.shape).reshape(parts.shape)
            beyond &= must.any(-1)
        where = np.nonzero(beyond.any(-1))
        if not where[0].size:
            return 0
        stretched = self._kind.stretched(blocks[where], parts[where], None if must is None else must[where])
        changed = (stretched != blocks[where]).any(-1)
        blocks[where] = stretched
        return int(np.count_nonzero(changed))

    def _blocks(self, strip: Strip, first: int, last: int) -> Bytes:
        """The blocks of some columns, (rows, blocks, bytes): a view."""
        numbers, size = self._kind.numbers, self._kind.size
        return strip[self.name].reshape(-1, self.cols // numbers, size)[:, first // numbers : last // numbers]

    def _check(self, blocks: Bytes) -> None:
        for place in self._kind.halves:
            exponents = blocks[..., place + 1] & 0x7C
            bad = int(np.count_nonzero(exponents == 0x7C))
            if bad:
                raise UsageError(
                    f"tensor {printable(self.name)!r} has {bad} scales that are not finite; the source is damaged, "
                    "fetch it again"
                )
