"""A parameter of two checkpoints as matrices, read a block of rows at a time."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.formats import parameter_in
from weight_edit.checkpoint.quantized.values import matrices_of, stored_tensors
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.checkpoint.tensor.storage import ByteReader, Plain, Storage, Strip
from weight_edit.errors import UnsupportedError, UsageError

BLOCK = 1 << 19
"""Numbers worked on at a time, in float64."""

Side = Literal["rows", "columns"]
"""Whether the stream's vectors are the rows or the columns of the matrices."""

Values = NDArray[np.float64]

# Bits after a number's first one. Of a 4-bit code there is one, and it shares its scale with others.
_BITS: Mapping[str, int] = {
    "BF16": 7,
    "F16": 10,
    "F32": 23,
    "F64": 52,
    "F8_E4M3": 3,
    "F8_E5M2": 2,
    "I8": 6,
    "U8": 1,
    "F4": 1,
}


def binade(values: Values) -> Values:
    """The power of two at or below the size of each number."""
    return np.asarray(np.exp2(np.floor(np.log2(np.maximum(np.abs(values), 1e-300)))))


def stored(checkpoint: Checkpoint, name: str) -> Storage | None:
    """The storage of a tensor as matrices of its last two axes; None if it cannot be decoded."""
    info = checkpoint.tensors[name]
    if not info.shape:
        return None
    given = stored_tensors(checkpoint)
    if given.config or checkpoint.gguf is not None:
        try:
            return matrices_of(checkpoint, parameter_in(info, given) or name)
        except (UnsupportedError, UsageError, ValueError):
            return None
    return Plain(name, info.dtype, info.shape, max(0, len(info.shape) - 2)) if info.dtype in STORED else None


def first_rows(checkpoint: Checkpoint, name: str, rows: int) -> Storage | None:
    """The storage of the first rows of a matrix of plain numbers; None of anything else."""
    info = checkpoint.tensors[name]
    whole = stored(checkpoint, name)
    if not isinstance(whole, Plain) or len(info.shape) != 2 or not 0 < rows <= info.shape[0]:
        return None
    return Plain(name, info.dtype, (rows, info.shape[1]), 0)


@dataclass
class RowBlock:
    """The same rows of both checkpoints.

    Attributes:
        slab, first, last: which.
        a, b: their numbers, shape (rows, cols); None for b where only the first side was read.
    """

    slab: int
    first: int
    last: int
    a: Values
    b: Values

    @property
    def change(self) -> NDArray[np.float32]:
        """b - a in float32, exact but for the last bits."""
        return (self.b - self.a).astype(np.float32)


@dataclass(kw_only=True)
class Pair:
    """A parameter that both checkpoints have in the same shape.

    Attributes:
        name: of the tensor in both.
        a, b: how it lies in each.
        read_a, read_b: read their bytes.
        touched: slab and first row of the blocks that differ; filled by `compare`.
    """

    name: str
    a: Storage
    b: Storage
    read_a: ByteReader
    read_b: ByteReader
    touched: set[tuple[int, int]] = field(default_factory=set)

    @property
    def slabs(self) -> int:
        """The number of matrices: that of a fused layer's experts, else 1."""
        return self.a.slabs

    def length(self, side: Side) -> int:
        """The length of a stream vector on a side."""
        return self.a.rows if side == "columns" else self.a.cols

    def others(self, side: Side) -> int:
        """The number of stream vectors in one matrix."""
        return self.a.cols if side == "columns" else self.a.rows

    def sides(self, width: int | None) -> list[Side]:
        """The sides that are as long as the stream is wide."""
        candidates: tuple[Side, ...] = ("columns", "rows")
        return [side for side in candidates if self.length(side) == width and (side == "rows" or self.a.rows > 1)]

    @property
    def bits(self) -> int:
        """The mantissa bits of the coarser of the two formats."""
        return min(_BITS.get(dtype, 1) for dtype in (self._dtype(self.a), self._dtype(self.b)))

    @staticmethod
    def _dtype(storage: Storage) -> str:
        return storage.parts[storage.name][0]

    def _steps(self) -> Iterator[tuple[int, int]]:
        step = math.lcm(self.a.row_step, self.b.row_step)
        step *= max(1, BLOCK // max(1, self.a.cols) // step)
        for first in range(0, self.a.rows, step):
            yield first, min(first + step, self.a.rows)

    def compare(self) -> Iterator[RowBlock]:
        """The blocks whose bytes differ, which are also noted in `touched`."""
        same_format = self.a.reads == self.b.reads
        for slab in range(self.slabs):
            for first, last in self._steps():
                ours = self.a.load(self.read_a, slab, first, last)
                theirs = self.b.load(self.read_b, slab, first, last)
                if same_format and all(np.array_equal(ours[part], theirs[part]) for part in ours):
                    continue
                self.touched.add((slab, first))
                yield self._block(slab, first, last, ours, theirs)

    def changed(self, slab: int) -> Iterator[RowBlock]:
        """The differing blocks of one matrix."""
        return (block for block in self._blocks(slab) if (slab, block.first) in self.touched)

    def blocks(self, slab: int) -> Iterator[RowBlock]:
        """All blocks of one matrix; b is a where nothing differs."""
        return self._blocks(slab, everything=True)

    def blocks_with_bytes(self, slab: int) -> Iterator[tuple[RowBlock, Strip | None]]:
        """All blocks of one matrix, with the bytes of the second side where they differ."""
        for first, last in self._steps():
            differs = (slab, first) in self.touched
            ours = self.a.load(self.read_a, slab, first, last)
            theirs = self.b.load(self.read_b, slab, first, last) if differs else None
            yield self._block(slab, first, last, ours, theirs), theirs

    def _blocks(self, slab: int, everything: bool = False) -> Iterator[RowBlock]:
        for first, last in self._steps():
            differs = (slab, first) in self.touched
            if not differs and not everything:
                continue
            ours = self.a.load(self.read_a, slab, first, last)
            theirs = self.b.load(self.read_b, slab, first, last) if differs else None
            yield self._block(slab, first, last, ours, theirs)

    def _block(self, slab: int, first: int, last: int, ours: Strip, theirs: Strip | None) -> RowBlock:
        a = self.a.decode(ours, last - first, 0, self.a.cols)
        b = a if theirs is None else self.b.decode(theirs, last - first, 0, self.b.cols)
        return RowBlock(slab, first, last, a, b)
