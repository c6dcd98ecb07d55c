"""One parameter of two checkpoints as matrices of numbers, read a block of rows at a time."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.checkpoint.tensor.storage import ByteReader, Plain, Storage, Strip
from weight_edit.errors import UnsupportedError, UsageError

BLOCK = 1 << 19
"""Numbers that are worked on at a time, in float64."""

Side = Literal["rows", "columns"]
"""Which way the vectors of the residual stream lie in the matrices: a stream's vector is a row or a column of them."""

Values = NDArray[np.float64]

# Bits after a number's first one. Of a 4-bit code there is one, and it shares its scale with others.
_BITS: Mapping[str, int] = {"BF16": 7, "F16": 10, "F32": 23, "F64": 52, "F8_E4M3": 3, "F8_E5M2": 2, "U8": 1, "F4": 1}


def stored(checkpoint: Checkpoint, name: str) -> Storage | None:
    """How a tensor's numbers lie on disk, its last two axes as matrices; None where they cannot be decoded."""
    info = checkpoint.tensors[name]
    axis = max(0, len(info.shape) - 2)
    if not info.shape:
        return None
    config = checkpoint.config.get("quantization_config") or {}
    if config:
        logical = name.removesuffix("_blocks")
        try:
            return storage_of(logical, checkpoint.tensors, config, 1 if logical != name else axis)
        except (UnsupportedError, UsageError, ValueError):
            return None
    return Plain(name, info.dtype, info.shape, axis) if info.dtype in STORED else None


@dataclass
class RowBlock:
    """Some rows of both sides.

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
        """b - a in float32, which is exact but for the last bits."""
        return (self.b - self.a).astype(np.float32)


@dataclass(kw_only=True)
class Pair:
    """A parameter that both checkpoints have, with numbers of the same shape.

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
        """How many matrices there are (the experts of a fused layer; one for all else)."""
        return self.a.slabs

    def length(self, side: Side) -> int:
        """How many numbers a vector of the stream would have."""
        return self.a.rows if side == "columns" else self.a.cols

    def others(self, side: Side) -> int:
        """How many such vectors one matrix has."""
        return self.a.cols if side == "columns" else self.a.rows

    def sides(self, width: int | None) -> list[Side]:
        """The sides on which the stream may be: those as wide as it is."""
        candidates: tuple[Side, ...] = ("columns", "rows")
        return [side for side in candidates if self.length(side) == width and (side == "rows" or self.a.rows > 1)]

    @property
    def bits(self) -> int:
        """How finely the coarser of the two formats stores a number: bits after its first one."""
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
        """Blocks whose bytes differ, noted in `touched`; the others are passed over."""
        same_format = dict(self.a.parts) == dict(self.b.parts)
        for slab in range(self.slabs):
            for first, last in self._steps():
                ours = self.a.load(self.read_a, slab, first, last)
                theirs = self.b.load(self.read_b, slab, first, last)
                if same_format and all(np.array_equal(ours[part], theirs[part]) for part in ours):
                    continue
                self.touched.add((slab, first))
                yield self._block(slab, first, last, ours, theirs)

    def changed(self, slab: int) -> Iterator[RowBlock]:
        """The blocks of one matrix that differ."""
        return (block for block in self._blocks(slab) if (slab, block.first) in self.touched)

    def blocks(self, slab: int) -> Iterator[RowBlock]:
        """All blocks of one matrix; where nothing differs, b is a."""
        return self._blocks(slab, everything=True)

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
