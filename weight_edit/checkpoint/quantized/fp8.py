"""FP8 weights: e4m3 codes with scales per block, per row or per tensor.

A number is its code's times its scale. A block keeps its scale as long as the largest of its edited numbers is within
half a step of the largest code's, and not so small that codes are left unused. Else the scale is made anew: that number
over the largest code, rounded up into the dtype that scales are stored in.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.grids import on_floats
from weight_edit.checkpoint.quantized.minifloat import E4M3
from weight_edit.checkpoint.quantized.scales import check_scales, item_size, read_scales, store_scales
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes, Strip

FP8 = "F8_E4M3"
"""The dtype of FP8 codes; weights in other 8-bit floats are not edited."""


_FITS = 28.0, 464.0
"""The largest number of a block in units of its scale: between a sixteenth of the largest code and half a step above.

Below, the smallest numbers would come out of the codes' range without need.
"""


@dataclass(frozen=True)
class TensorSpec:
    """A tensor on disk.

    Attributes:
        name, dtype, shape: as the checkpoint's header has them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


class _Fp8(Coded):
    """Base of the FP8 storages: codes of shape (n, m) or (experts, n, m), scales of any dtype."""

    keeps_grid = True

    def __init__(self, weight: TensorSpec, scale: TensorSpec, power_of_two: bool) -> None:
        self.parts = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (weight, scale)}
        self.slabs, (self.rows, self.cols) = prod(weight.shape[:-2]), weight.shape[-2:]
        self._scale, self._power_of_two = scale, power_of_two
        self._item = item_size(scale.dtype)
        if scale.dtype == "F16":
            self.limit = E4M3.largest * 65504.0

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        return strip[self.name].reshape(rows, self.cols)[:, first:last]

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        into[self.name].reshape(rows, self.cols)[:, first : first + cols] = codes

    @abstractmethod
    def scales(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.float64]:
        """The scales of a strip's columns, in a shape that broadcasts to that of the codes."""

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`."""
        values = E4M3.decode(self.codes(strip, rows, first, last))
        values *= self.scales(strip, rows, first, last)
        return values

    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """See `Coded`."""
        rows, cols = values.shape
        return on_floats(values, self.scales(strip, rows, first, first + cols), E4M3)

    def _kept(self, held: Bytes, peaks: NDArray[np.float64]) -> tuple[Bytes, int]:
        """The scales for blocks with these largest numbers, where the held ones do not fit, and how many are new.

        Args:
            held: the scales as they are, bytes in the blocks' order.
            peaks: any shape.
        """
        scales = read_scales(held, self._scale.dtype)
        flat = peaks.reshape(-1)
        fits = (scales > 0) & (flat <= _FITS[1] * scales) & ((flat >= _FITS[0] * scales) | (flat == 0))
        raw = store_scales(flat / E4M3.largest, self._scale.dtype, self._power_of_two).reshape(-1, self._item)
        found = np.where(fits[:, None], held.reshape(-1, self._item), raw)
        return found.reshape(-1), int(fits.size - np.count_nonzero(fits))

    def _scales(self, strip: Strip) -> NDArray[np.float64]:
        return read_scales(strip[self._scale.name], self._scale.dtype)

    def _load(self, read: ByteReader, slab: int, first: int, last: int, scales: slice) -> Strip:
        """The rows' codes and their scales, which are checked."""
        codes = np.empty((last - first) * self.cols, np.uint8)
        read(self.name, (slab * self.rows + first) * self.cols, codes)
        raw = np.empty((scales.stop - scales.start) * self._item, np.uint8)
        read(self._scale.name, scales.start * self._item, raw)
        check_scales(read_scales(raw, self._scale.dtype), self._scale.name)
        return {self.name: codes, self._scale.name: raw}


class Fp8Block(_Fp8):
    """FP8 with one scale per block of `block[0]` by `block[1]` numbers; edge blocks may be less.

    A scale for each row is a block of one row and all columns.

    Args:
        weight: e4m3 codes, (n, m) or (experts, n, m).
        scale: one scale for each block, in the blocks' order.
        block: rows and columns of a block.
        power_of_two: whether scales are whole powers of two in spite of a dtype that has others.
    """

    def __init__(
        self, weight: TensorSpec, scale: TensorSpec, block: tuple[int, int], power_of_two: bool = False
    ) -> None:
        super().__init__(weight, scale, power_of_two)
        self.row_step, self.col_step = block
        self._down, self._across = -(-self.rows // block[0]), -(-self.cols // block[1])

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        return {self.name: rows * self.cols, self._scale.name: -(-rows // self.row_step) * self._across * self._item}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`.

        Raises:
            UsageError: a scale is negative or not finite.
        """
        begin = (slab * self._down + first // self.row_step) * self._across
        count = -(-(last - first) // self.row_step) * self._across
        return self._load(read, slab, first, last, slice(begin, begin + count))

    def scales(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.float64]:
        """See `_Fp8`."""
        grid = self._scales(strip).reshape(-1, self._across)[:, self._blocks(first, last)]
        return self._spread(grid, rows, last - first)

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`."""
        blocks = self._blocks(first, first + values.shape[1])
        stored = into[self._scale.name].reshape(-1, self._across, self._item)
        held = np.ascontiguousarray(stored[:, blocks])
        raw, new = self._kept(held.reshape(-1), self._peaks(values))
        stored[:, blocks] = raw.reshape(held.shape)
        return new

    def _blocks(self, first: int, last: int) -> slice:
        """The columns of the grid of blocks that cover some columns, given at a block's begin."""
        return slice(first // self.col_step, -(-last // self.col_step))

    def _peaks(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest absolute number of each block, in the shape of the grid."""
        rows, cols = values.shape
        if self.row_step >= rows:
            found = np.maximum(values.max(axis=0), -values.min(axis=0))[None]
        elif self.col_step >= cols:
            found = np.maximum(values.max(axis=1), -values.min(axis=1))[:, None]
        else:
            found = np.abs(values)
        # What is left of most tensors by now is small, and this slow.
        for axis, step in enumerate((self.row_step, self.col_step)):
            if found.shape[axis] > 1 and step > 1:
                found = np.maximum.reduceat(found, np.arange(0, found.shape[axis], step), axis=axis)
        return found

    def _spread(self, grid: NDArray[np.float64], rows: int, cols: int) -> NDArray[np.float64]:
        """A grid's scales, in a shape that broadcasts to (rows, columns)."""
        if grid.shape[1] > 1:
            grid = np.repeat(grid, self.col_step, axis=1)[:, :cols]
        return grid if grid.shape[0] == 1 else np.repeat(grid, self.row_step, axis=0)[:rows]


class Fp8Scaled(_Fp8):
    """FP8 with one scale for the whole tensor, or for each of fused experts.

    Args:
        weight: e4m3 codes, (n, m) or (experts, n, m).
        scale: as many scales as there are matrices.
        power_of_two: whether scales are whole powers of two in spite of a dtype that has others.
    """

    one_scale = True

    def __init__(self, weight: TensorSpec, scale: TensorSpec, power_of_two: bool = False) -> None:
        super().__init__(weight, scale, power_of_two)
        self.undivided = frozenset([scale.name])

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`. Each strip has the scale of its matrix."""
        return {self.name: rows * self.cols, self._scale.name: self._item}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`.

        Raises:
            UsageError: the scale is negative or not finite.
        """
        return self._load(read, slab, first, last, slice(slab, slab + 1))

    def scales(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.float64]:
        """See `_Fp8`."""
        return self._scales(strip)

    def scale_bytes(self, peak: float, held: Bytes) -> Bytes:
        """See `Storage`."""
        return self._kept(held, np.array(peak))[0]

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`."""
        raw, new = self._kept(into[self._scale.name], np.array(peak))
        into[self._scale.name][:] = raw
        return new
