"""The storage of one tensor's numbers on disk, edited a strip of rows at a time.

A tensor is seen as `slabs` matrices (the experts of a fused layer; one for all else) of `rows` x `cols` numbers. The
bytes of each of its parts (the numbers themselves, their scales) are in the order of the rows, so that what is encoded
strip by strip is written as it comes. `Plain` is a tensor of one part; quantised formats are in `quantized/`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.tensor.numbers import STORED, decode, encode
from weight_edit.checkpoint.tensor.scratch import Memory, fresh

TILE = 1 << 17
"""Numbers worked on at a time, so that all copies of a tile stay in a processor's cache.

The grid of tiles follows from a tensor's shape alone: sums are made in the same order whatever is read or written at a
time and however many threads there are, so that the result is the same bit for bit.
"""

Bytes = NDArray[np.uint8]
ByteReader = Callable[[str, int, Bytes], None]
"""`read(name, offset, into)` fills `into` with a tensor's bytes from `offset` on."""

Strip = Mapping[str, Bytes]
"""Part's name -> the bytes of some rows, flat."""


@dataclass(frozen=True)
class Matrix:
    """A tensor's shape as a stack of matrices, with one axis as their rows or columns.

    Attributes:
        slabs, rows, cols: their number and shape.
        along_rows: whether the axis runs over the rows, so that a vector along it is a column.
    """

    slabs: int
    rows: int
    cols: int
    along_rows: bool

    @classmethod
    def of(cls, shape: tuple[int, ...], axis: int) -> "Matrix":
        """The matrices of `shape` whose columns (or rows, for the last axis) run along `axis`.

        Raises:
            ValueError: no such axis.
        """
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"a tensor of shape {shape} has no axis {axis}")
        axis %= len(shape)
        before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
        if after == 1 and axis == len(shape) - 1:
            return cls(1, before, shape[axis], False)
        return cls(before, shape[axis], after, True)


class Storage(ABC):
    """The storage of one tensor's numbers on disk.

    Attributes:
        parts: the tensors on disk that hold them: name -> (dtype, shape); the numbers first, then their scales.
        aside: those that are read with them and never written, such as zero points; and what goes with them where they
            leave their format. What a strip has of them is as `load` gives it, which may be unpacked or nothing.
        slabs, rows, cols: the shape as matrices.
        row_step, col_step: numbers that share a scale are `row_step` rows by `col_step` columns: strips begin at
            multiples of the first, tiles at multiples of both. With a `row_step` of 1 a tile has all columns.
        limit: the largest number that can be stored; larger ones overflow.
        lossy: whether storing changes numbers by more than the rounding of a floating format.
        one_scale: whether a single scale stands for a whole slab, which needs a pass over it first.
        keeps_grid: whether an edited strip begins as a copy of the source's, as in formats that keep their scales.
        undivided: the parts of a strip that are the same for all rows of a slab, such as that scale.
    """

    parts: Mapping[str, tuple[str, tuple[int, ...]]]
    aside: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType({})
    slabs: int
    rows: int
    cols: int
    row_step: int = 1
    col_step: int = 1
    limit: float = float("inf")
    lossy: bool = False
    one_scale: bool = False
    keeps_grid: bool = False
    undivided: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.parts)}, {self.slabs}x{self.rows}x{self.cols})"

    @property
    def name(self) -> str:
        """The name of the tensor that holds the numbers themselves."""
        return next(iter(self.parts))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the numbers, to which an edit's axis refers."""
        return self.parts[self.name][1]

    @property
    def reads(self) -> Mapping[str, tuple[str, tuple[int, ...]]]:
        """All tensors on disk that the numbers are read from."""
        return {**self.parts, **self.aside}

    @abstractmethod
    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """Part's name -> its size in bytes for some rows: a whole number of steps, or the last ones.

        Nothing that is `aside` is among them.
        """

    @abstractmethod
    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """Read the rows `first` to `last` - 1 of one slab."""

    @abstractmethod
    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """The exact numbers of a strip's columns `first` to `last` - 1, (rows, last - first)."""

    @abstractmethod
    def encode(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """Store numbers into a strip's columns, beginning at `first`.

        Returns:
            The number of blocks whose scale was made anew.

        Args:
            values: shape (rows, columns); may be used up.
            into: the strip's bytes, as many as `strip_bytes` says.
            peak: the largest absolute number of the whole slab, where `one_scale`.
        """

    def scale_bytes(self, peak: float, held: Bytes) -> Bytes:
        """The bytes of a slab's single scale, if `one_scale`.

        Args:
            peak: the largest absolute number of the slab.
            held: the scale's bytes before the edit; zeros where there is none.
        """
        raise ValueError(f"{self.name} has no scale for the whole of it")

    def rows_of(self, strip: Strip, first: int, last: int) -> Strip:
        """A strip of fewer rows, `first` to `last` - 1 of a strip's own: views of its bytes.

        What is `aside` is taken to be the same for all rows; formats in which it is not say so here.
        """
        begin, end = self.strip_bytes(first), self.strip_bytes(last)
        whole = self.undivided | (strip.keys() - begin.keys())
        return {part: raw if part in whole else raw[begin[part] : end[part]] for part, raw in strip.items()}

    def strips(self, numbers: int = TILE) -> Iterator[tuple[int, int]]:
        """(first row, row after the last) of each strip of at least one step, and of about so many numbers."""
        step = max(1, numbers // max(1, self.cols) // self.row_step) * self.row_step
        for first in range(0, self.rows, step):
            yield first, min(first + step, self.rows)

    def tiles(self) -> Iterator[tuple[int, int]]:
        """(first column, column after the last) of each tile of a strip."""
        step = self.cols
        if self.row_step > 1:
            step = max(self.col_step, TILE // self.row_step // self.col_step * self.col_step)
        for first in range(0, self.cols, max(1, step)):
            yield first, min(first + step, self.cols)


_LIMITS = {"BF16": 2.0**128 - 2.0**119 - 2.0**103, "F16": 65520.0, "F32": 2.0**128 - 2.0**103}
"""The least number stored as infinity: half a unit above the largest finite one.

For bfloat16 half a unit of float32 before that, because numbers pass through float32 on their way.
"""


class Plain(Storage):
    """A tensor of plain floating numbers: F64, F32, F16 or BF16."""

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...], axis: int) -> None:
        self.parts = {name: (dtype, shape)}
        matrix = Matrix.of(shape, axis)
        self.slabs, self.rows, self.cols = matrix.slabs, matrix.rows, matrix.cols
        self._dtype, self._item = dtype, STORED[dtype].itemsize
        self.limit = _LIMITS.get(dtype, float("inf"))

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        return {self.name: rows * self.cols * self._item}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`."""
        raw = memory("load", (last - first) * self.cols * self._item, np.uint8)
        read(self.name, (slab * self.rows + first) * self.cols * self._item, raw)
        return {self.name: raw}

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`."""
        wide = memory("decode", rows * self.cols, np.float64)
        decode(strip[self.name], self._dtype, wide)
        return wide.reshape(rows, self.cols)[:, first:last]

    def encode(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Storage`."""
        rows, cols = values.shape
        if cols == self.cols:
            encode(values.reshape(-1), self._dtype, into[self.name])
            return 0
        raw = np.empty(values.size * self._item, np.uint8)
        encode(np.ascontiguousarray(values).reshape(-1), self._dtype, raw)
        whole = into[self.name].reshape(rows, self.cols * self._item)
        whole[:, first * self._item : (first + cols) * self._item] = raw.reshape(rows, -1)
        return 0
