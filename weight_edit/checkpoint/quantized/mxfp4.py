"""MXFP4 as in gpt-oss: groups of 32 e2m1 codes, two per byte, with one power of two each.

A number is its code's times `2 ** (scale - 127)`. On disk experts lie transposed against transformers' parameters:
`down_proj` there is (experts, in, out), and `down_proj_blocks` holds (experts, out, in) with the groups along `in`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.grids import on_floats
from weight_edit.checkpoint.quantized.halves import pack, pairs, unpack
from weight_edit.checkpoint.quantized.minifloat import E2M1
from weight_edit.checkpoint.quantized.scales import BIAS, E8M0, check_scales, read_scales
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes, Strip

GROUP = 32
"""The number of codes that share a scale."""

_FITS = 1.5, 7.0
"""The largest number of a group in units of its scale: from a quarter of the largest code to half a step above it."""

_BYTES = GROUP // 2
_PAIRS = pairs(E2M1.numbers)


class Mxfp4(Coded):
    """MXFP4 experts, each of shape (rows, groups * 32).

    Args:
        blocks: U8 (experts, rows, groups, 16).
        scales: U8 (experts, rows, groups).
    """

    col_step = packed = GROUP
    keeps_grid = True

    def __init__(self, blocks: TensorSpec, scales: TensorSpec) -> None:
        self.parts = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (blocks, scales)}
        self.slabs, self.rows, self._groups = scales.shape
        self.cols = self._groups * GROUP
        self._scale = scales.name

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the numbers, (experts, rows, columns)."""
        return self.slabs, self.rows, self.cols

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        return {self.name: rows * self._groups * _BYTES, self._scale: rows * self._groups}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`.

        Raises:
            UsageError: a scale is no number.
        """
        strip = {name: np.empty(size, np.uint8) for name, size in self.strip_bytes(last - first).items()}
        begin = (slab * self.rows + first) * self._groups
        read(self.name, begin * _BYTES, strip[self.name])
        read(self._scale, begin, strip[self._scale])
        check_scales(read_scales(strip[self._scale], E8M0), self._scale)
        return strip

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        return unpack(strip[self.name].reshape(rows, -1)[:, first // 2 : last // 2])

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        pack(codes, into[self.name].reshape(rows, -1)[:, first // 2 : (first + cols) // 2])

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`. A byte at a time."""
        halves = strip[self.name].reshape(rows, -1)[:, first // 2 : last // 2]
        values = _PAIRS[halves].view(np.float64).reshape(rows, -1, GROUP)
        values *= read_scales(self._codes_of_scales(strip, rows, first, last), E8M0)[..., None]
        return values.reshape(rows, last - first)

    def _codes_of_scales(self, strip: Strip, rows: int, first: int, last: int) -> Bytes:
        """The e8m0 codes of the groups in a strip's columns, (rows, groups)."""
        return strip[self._scale].reshape(rows, self._groups)[:, first // GROUP : last // GROUP]

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`."""
        rows, cols = values.shape
        groups = values.reshape(rows, -1, GROUP)
        peaks = np.maximum(groups.max(axis=2), -groups.min(axis=2))
        held = self._codes_of_scales(into, rows, first, first + cols)
        sizes = peaks / read_scales(held, E8M0)
        fits = (sizes <= _FITS[1]) & ((sizes >= _FITS[0]) | (peaks == 0))
        np.copyto(held, _exponents(peaks) + BIAS, where=~fits, casting="unsafe")
        return int(fits.size - np.count_nonzero(fits))

    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """See `Coded`."""
        rows, cols = values.shape
        scales = read_scales(self._codes_of_scales(strip, rows, first, first + cols), E8M0)
        found = on_floats(values.reshape(rows, -1, GROUP), scales[..., None], E2M1)
        return found.shaped(values.shape)


def _exponents(peaks: NDArray[np.float64]) -> NDArray[np.int64]:
    """The exponent of each group's scale: the least one with no error above half a step.

    The usual one leaves the largest number between 4 and 8, where it is cut to 6. That is the nearest number under the
    next power too, up to 7, and all smaller numbers have the finer steps. Above 7 the cut is more than half a step.
    """
    exponents = np.frexp(peaks)[1].astype(np.int64) - 3
    exponents += np.ldexp(peaks, -exponents) > 7
    exponents[peaks == 0] = 0
    return np.clip(exponents, -BIAS, BIAS)
