"""bitsandbytes' NF4 and FP4: codes of 16 levels, in blocks of the flattened matrix.

A code names a level, which the block's largest number (`absmax`) is multiplied by. Blocks of usually 64 numbers run
over the whole matrix, so that some cross from one row into the next where rows are no multiple of them. The largest
numbers themselves are float32, or, with `bnb_4bit_use_double_quant`, bytes that name one of 256 levels:

    absmax = nested_quant_map[byte] * nested_absmax[block // 256] + nested_offset
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.bnb_state import LIMITS, NESTED_BLOCK, QuantState
from weight_edit.checkpoint.quantized.clipping import misfits
from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.grids import Levels, on_levels
from weight_edit.checkpoint.quantized.halves import pack, pairs, unpack
from weight_edit.checkpoint.quantized.scales import check_scales
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes, Strip
from weight_edit.errors import UnsupportedError, UsageError

_LARGEST_STRIP = 1 << 26

# Half the widest step at an end of the grid, as a share of the largest number.
_CUT = {"nf4": 0.152, "fp4": 1 / 6}

_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
_FP4 = tuple(sign * twelfths / 12 for sign in (1.0, -1.0) for twelfths in (0, 0.0625, 8, 12, 4, 6, 2, 3))

TABLES: Mapping[str, NDArray[np.float32]] = {"nf4": np.array(_NF4, np.float32), "fp4": np.array(_FP4, np.float32)}
"""Kind -> the level of each code. What a file says in `quant_map` must agree: readers go by their own table."""


@dataclass(frozen=True)
class Nested:
    """The tensors of double quantised absmax.

    Attributes:
        absmax: F32, one for each 256 blocks.
        levels: F32, 256 of them (`nested_quant_map`).
    """

    absmax: TensorSpec
    levels: TensorSpec


class Bnb4(Coded):
    """NF4 or FP4 weights of a matrix.

    Args:
        weight: U8 (bytes, 1), two codes a byte, the high half's first.
        absmax: F32 (blocks,), or U8 with `nested`.
        table: F32 (16,), the file's own copy of the levels (`quant_map`).
        said: what the file says of the matrix, and the tensor of bytes in which it does.
        nested: where absmax are double quantised.

    Raises:
        UnsupportedError: rows and blocks that come together only after too many rows.
    """

    keeps_grid = True

    def __init__(
        self,
        weight: TensorSpec,
        absmax: TensorSpec,
        table: TensorSpec,
        said: tuple[TensorSpec, QuantState],
        nested: Nested | None,
    ) -> None:
        spec, state = said
        self.parts = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (weight, absmax)}
        beside = (table, spec) if nested is None else (table, spec, nested.absmax, nested.levels)
        self.aside = {tensor.name: (tensor.dtype, tensor.shape) for tensor in beside}
        self.slabs, (self.rows, self.cols) = 1, state.shape
        self._block, self._offset = state.block, state.offset
        self._absmax, self._nested, self._table, self._said = absmax.name, nested, table.name, spec
        self._numbers = TABLES[state.kind]
        # Stable, and -0 before 0.
        self._order = np.lexsort((~np.signbit(self._numbers), self._numbers)).astype(np.uint8)
        self._levels = Levels(self._numbers[self._order])
        self._pairs = pairs(self._numbers, low_first=False)
        self._cut = _CUT[state.kind]
        self.limit = LIMITS[state.dtype]
        # Blocks that end with a row belong to it; else as many rows go together as blocks end with.
        self._crossing = self.cols % self._block != 0 or self.cols == self._block
        self.col_step = self.cols if self._crossing else self._block
        self.row_step = self._block // math.gcd(self.cols, self._block)
        if self.row_step > 1 and self.row_step * self.cols > _LARGEST_STRIP:
            raise UnsupportedError(
                f"tensor {printable(weight.name)!r}: {self.row_step} rows of {self.cols} numbers share blocks of "
                f"{self._block}, which is not edited; give the checkpoint that it was quantised from"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the numbers, (out, in)."""
        return self.rows, self.cols

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        blocks = -(-rows * self.cols // self._block)
        return {self.name: (rows * self.cols + 1) // 2, self._absmax: blocks * self._item}

    @property
    def _item(self) -> int:
        return 4 if self._nested is None else 1

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`. Beside its rows, a strip has the nested scale of each absmax, and the levels.

        Raises:
            UsageError: scales that are not finite, or negative ones in float32; another table of levels.
        """
        strip = {name: np.empty(size, np.uint8) for name, size in self.strip_bytes(last - first).items()}
        block = first * self.cols // self._block
        read(self.name, first * self.cols // 2, strip[self.name])
        read(self._absmax, block * self._item, strip[self._absmax])
        strip[self._said.name] = np.empty(self._said.shape, np.uint8)
        read(self._said.name, 0, strip[self._said.name])
        table = strip[self._table] = np.empty(4 * 16, np.uint8)
        read(self._table, 0, table)
        if not np.allclose(table.view("<f4"), self._numbers, rtol=0, atol=1e-3):
            raise UsageError(
                f"tensor {printable(self._table)!r} is not the table of bitsandbytes, which readers go by; "
                "fetch the checkpoint again"
            )
        if self._nested is not None:
            self._load_nested(read, block, strip)
        scales = self._absmax_of(strip).astype(np.float64)
        # Double quantised ones of blocks of zeros may fall below zero, where codes count downwards.
        check_scales(scales if self._nested is None else np.abs(scales), self._absmax)
        return strip

    def _load_nested(self, read: ByteReader, block: int, strip: dict[str, Bytes]) -> None:
        """Read what absmax are made of, those of a strip from a block on."""
        assert self._nested is not None
        absmax, levels = self._nested.absmax.name, self._nested.levels.name
        count = len(strip[self._absmax])
        begin, end = block // NESTED_BLOCK, -(-(block + count) // NESTED_BLOCK)
        scales = np.empty(4 * (end - begin), np.uint8)
        read(absmax, 4 * begin, scales)
        check_scales(scales.view("<f4").astype(np.float64), absmax)
        # One for each absmax, so that a strip's rows need not know where it begins.
        spread = np.repeat(scales.view("<f4"), NESTED_BLOCK)[block - begin * NESTED_BLOCK :][:count]
        strip[absmax] = spread.view(np.uint8)
        strip[levels] = np.empty(4 * 256, np.uint8)
        read(levels, 0, strip[levels])
        numbers = strip[levels].view("<f4")
        if not (np.isfinite(numbers).all() and (np.diff(numbers) >= 0).all()):
            raise UsageError(
                f"tensor {printable(levels)!r} has levels that are not finite or do not ascend; the source is damaged, "
                "fetch it again"
            )

    def rows_of(self, strip: Strip, first: int, last: int) -> Strip:
        """See `Storage`."""
        found = dict(super().rows_of(strip, first, last))
        if self._nested is not None:
            begin, end = (-(-rows * self.cols // self._block) for rows in (first, last))
            found[self._nested.absmax.name] = strip[self._nested.absmax.name][4 * begin : 4 * end]
        return found

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        if self._crossing:
            return unpack(strip[self.name], low_first=False)[: rows * self.cols].reshape(rows, self.cols)[:, first:last]
        return unpack(strip[self.name].reshape(rows, -1)[:, first // 2 : last // 2], low_first=False)

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        halves = into[self.name]
        if self._crossing:
            # All of them, as bytes have numbers of two rows where these are odd.
            every = unpack(halves, low_first=False)
            every[: rows * self.cols].reshape(rows, self.cols)[:, first : first + cols] = codes
            codes = every
        else:
            halves = halves.reshape(rows, -1)[:, first // 2 : (first + cols) // 2]
        pack(codes, halves, low_first=False)

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`. A byte at a time, where blocks end with rows."""
        if self._crossing:
            values = self._numbers[self.codes(strip, rows, first, last)].astype(np.float64)
            values *= self._steps(strip, rows, first, last)
            return values
        begin, end = first // self._block * self._block, -(-last // self._block) * self._block
        halves = strip[self.name].reshape(rows, -1)[:, begin // 2 : end // 2]
        values = self._pairs[halves].view(np.float64).reshape(rows, -1, self._block)
        values *= self._steps(strip, rows, begin, end)
        return values.reshape(rows, -1)[:, first - begin : last - begin]

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`. Scales are those of the blocks; of double quantised ones, the byte that names the level."""
        if not values.size:
            return 0
        rows, cols = values.shape
        blocks = self._blocked(values)
        begin, end = first // self._block, (first + cols) // self._block

        def of_blocks(part: NDArray[Any]) -> NDArray[Any]:
            return part if self._crossing else part.reshape(rows, -1)[:, begin:end]

        steps = of_blocks(self._absmax_of(into))
        bad = misfits(
            blocks,
            np.abs(steps),
            self._cut,
            lambda chosen, mask: on_levels(chosen, steps[mask][:, None], self._levels),
            lambda: self._blocked(np.ascontiguousarray(self.decode(into, rows, first, first + cols))),
        )
        if not bad.any():
            return 0
        wanted = np.abs(blocks[bad]).max(axis=-1)
        if self._nested is None:
            made = wanted.astype(np.float32)
            made = np.where(made < wanted, np.nextafter(made, np.float32(np.inf)), made)
            of_blocks(into[self._absmax].view("<f4"))[bad] = made
            return len(made)
        levels, scales = (into[spec.name].view("<f4") for spec in (self._nested.levels, self._nested.absmax))
        codes = self._named(wanted.astype(np.float32), levels, of_blocks(scales)[bad])
        stored = of_blocks(into[self._absmax])
        made = int(np.count_nonzero(stored[bad] != codes))
        stored[bad] = codes
        return made

    def _named(
        self, wanted: NDArray[np.float32], levels: NDArray[np.float32], scales: NDArray[np.float32]
    ) -> NDArray[np.intp]:
        """The bytes that name the least absmax not below wanted ones, or the largest."""
        offset = np.float32(self._offset or 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            places = np.nan_to_num((wanted - offset) / scales)
        codes = np.minimum(np.searchsorted(levels, places), 255)
        # Rounding may have led to the level below.
        return np.minimum(codes + (levels[codes] * scales + offset < wanted), 255)

    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """See `Coded`. Where a block's largest number is zero all codes mean the same, and stay."""
        rows, cols = values.shape
        steps = self._steps(strip, rows, first, first + cols)
        found = on_levels(values if self._crossing else values.reshape(rows, -1, self._block), steps, self._levels)
        found = Neighbours(self._order[found.low], self._order[found.high], found.error, found.gap).shaped(values.shape)
        flat = steps == 0
        if flat.any():
            flat = np.broadcast_to(steps == 0, values.shape if self._crossing else (*steps.shape[:2], self._block))
            flat = flat.reshape(values.shape)
            found.low[flat] = found.high[flat] = self.codes(strip, rows, first, first + cols)[flat]
        return found

    def _blocked(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Columns of whole blocks, (rows, blocks, numbers); where blocks cross rows, whole rows, (blocks, numbers)."""
        if not self._crossing:
            return values.reshape(values.shape[0], -1, self._block)
        flat = values.reshape(-1)
        missing = -flat.size % self._block
        return (np.append(flat, np.zeros(missing)) if missing else flat).reshape(-1, self._block)

    def _absmax_of(self, strip: Strip) -> NDArray[np.float32]:
        """The absmax of a strip's blocks, flat, rounded as bitsandbytes does."""
        raw = strip[self._absmax]
        if self._nested is None:
            return raw.view("<f4")
        levels, scales = (strip[spec.name].view("<f4") for spec in (self._nested.levels, self._nested.absmax))
        found: NDArray[np.float32] = levels[raw] * scales + np.float32(self._offset or 0.0)
        return found

    def _steps(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.float32]:
        """The absmax of some columns: (rows, blocks, 1), or of each number where blocks cross rows."""
        found = self._absmax_of(strip)
        if not self._crossing:
            return found.reshape(rows, -1)[:, first // self._block : last // self._block, None]
        places = np.arange(rows)[:, None] * self.cols + np.arange(first, last)
        return found[places // self._block]
