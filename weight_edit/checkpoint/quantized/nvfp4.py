"""NVFP4: groups of 16 e2m1 codes, two per byte, with an e4m3 scale each, and one float32 scale for the matrix.

A number is its code's times its group's scale times the matrix's, by which ModelOpt multiplies (`weight_scale_2`) and
compressed-tensors divides (`weight_global_scale`). An edit keeps the matrix's scale, which runtimes share
among matrices.
"""

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.clipping import misfits
from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.grids import on_floats
from weight_edit.checkpoint.quantized.halves import pack, pairs, unpack
from weight_edit.checkpoint.quantized.minifloat import E2M1, E4M3
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Strip
from weight_edit.errors import UsageError

GROUP = 16
"""The number of codes that share a scale."""

_CUT = 1 / 6
"""Half the last step of e2m1, from 4 to 6, as a share of 6: what is cut by less is rounded as well as any number."""

_NAN = 127
"""The e4m3 codes from here on are no numbers, or negative."""

_PAIRS = pairs(E2M1.numbers)


class Nvfp4(Coded):
    """NVFP4 weights, (out, in), or of fused experts, (experts, out, in).

    Args:
        weight: U8 (..., out, in / 2).
        scale: F8_E4M3 (..., out, in / 16), of each group.
        whole: F32, one number, or one for each expert.
        divides: whether the numbers are divided by that, not multiplied.
    """

    col_step = packed = GROUP
    keeps_grid = True

    def __init__(self, weight: TensorSpec, scale: TensorSpec, whole: TensorSpec, divides: bool) -> None:
        self.parts = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (weight, scale)}
        self.aside = {whole.name: (whole.dtype, whole.shape)}
        self._lead = scale.shape[:-2]
        self.slabs, (self.rows, self._groups) = prod(self._lead), scale.shape[-2:]
        self.cols = self._groups * GROUP
        self._scale, self._whole, self._divides = scale.name, whole.name, divides
        self._many = prod(whole.shape) > 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the numbers."""
        return *self._lead, self.rows, self.cols

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        return {self.name: rows * self.cols // 2, self._scale: rows * self._groups}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`. Beside its rows, a strip has the scale of its matrix.

        Raises:
            UsageError: a scale is negative or not finite, or the matrix's is zero.
        """
        strip = {name: np.empty(size, np.uint8) for name, size in self.strip_bytes(last - first).items()}
        begin = (slab * self.rows + first) * self._groups
        read(self.name, begin * GROUP // 2, strip[self.name])
        read(self._scale, begin, strip[self._scale])
        strip[self._whole] = np.empty(4, np.uint8)
        read(self._whole, 4 * slab if self._many else 0, strip[self._whole])
        for name, bad in (
            (self._scale, int(np.count_nonzero(strip[self._scale] >= _NAN))),
            (self._whole, int(not 0 < self._whole_scale(strip) < np.inf)),
        ):
            if bad:
                raise UsageError(
                    f"tensor {printable(name)!r} has {bad} scales that are negative, zero or not finite; "
                    "the source is damaged, fetch it again"
                )
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
        begin, end = first // GROUP, -(-last // GROUP)
        halves = strip[self.name].reshape(rows, -1)[:, begin * GROUP // 2 : end * GROUP // 2]
        values = _PAIRS[halves].view(np.float64).reshape(rows, end - begin, GROUP)
        values *= self._scales(strip, rows, begin, end)[:, :, None]
        return values.reshape(rows, -1)[:, first - begin * GROUP : last - begin * GROUP]

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`. Scales are those of the groups."""
        rows, cols = values.shape
        begin, end = first // GROUP, (first + cols) // GROUP
        groups = values.reshape(rows, -1, GROUP)
        scales = self._scales(into, rows, begin, end)
        bad = misfits(
            groups,
            scales * E2M1.largest,
            _CUT,
            lambda chosen, mask: _neighbours(chosen, scales[mask][:, None]),
            lambda: self.decode(into, rows, first, first + cols).reshape(groups.shape),
        )
        if not bad.any():
            return 0
        whole = self._whole_scale(into)
        wanted = np.abs(groups[bad]).max(axis=-1) / E2M1.largest
        codes = np.maximum(E4M3.encode(wanted * whole if self._divides else wanted / whole), 1)
        stored = into[self._scale].reshape(rows, self._groups)[:, begin:end]
        made = int(np.count_nonzero(codes != stored[bad]))
        stored[bad] = codes
        return made

    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """See `Coded`. Where a scale is zero all codes mean the same, and stay."""
        rows, cols = values.shape
        scales = self._scales(strip, rows, first // GROUP, (first + cols) // GROUP)
        found = _neighbours(values.reshape(rows, -1, GROUP), scales[:, :, None])
        found = found.shaped(values.shape)
        flat = scales == 0
        if flat.any():
            spread = np.repeat(flat, GROUP, axis=1)
            kept = self.codes(strip, rows, first, first + cols)[spread]
            found.low[spread] = found.high[spread] = kept
        return found

    def _whole_scale(self, strip: Strip) -> float:
        return float(strip[self._whole].view("<f4")[0])

    def _scales(self, strip: Strip, rows: int, begin: int, end: int) -> NDArray[np.float64]:
        """The scales of some columns of groups, (rows, end - begin), rounded to float32 as readers of the format do."""
        scales = E4M3.decode(strip[self._scale].reshape(rows, self._groups)[:, begin:end])
        whole = self._whole_scale(strip)
        product = scales / whole if self._divides else scales * whole
        return product.astype(np.float32).astype(np.float64)


def _neighbours(values: NDArray[np.float64], scales: NDArray[np.float64]) -> Neighbours:
    """The neighbours of numbers under scales, of which some may be zero: the grid has that one number then."""
    flat = scales == 0
    if not flat.any():
        return on_floats(values, scales, E2M1)
    found = on_floats(values, np.where(flat, 1.0, scales), E2M1)
    np.copyto(found.error, -values, where=flat, casting="unsafe")
    np.copyto(found.gap, 0, where=flat)
    return found
