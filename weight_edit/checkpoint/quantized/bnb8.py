"""bitsandbytes' INT8: numbers from -127 to 127 over 127, times the largest number of their row (`SCB`)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.clipping import misfits
from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.grids import on_steps
from weight_edit.checkpoint.quantized.scales import check_scales
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Strip

_SIGN = np.uint8(128)
_PER_UNIT = 7.874015718698502e-3
"""bitsandbytes' 1/127, with which its rows are decoded."""


class Bnb8(Coded):
    """INT8 weights of a matrix, with the largest number of each row.

    Codes here are numbers plus 128; -128 is read, but never chosen.

    Args:
        weight: I8 (out, in).
        scale: F32 (out,), `SCB`.
        order: U8, `weight_format`, 0 for rows; None where there is none.
    """

    keeps_grid = True

    def __init__(self, weight: TensorSpec, scale: TensorSpec, order: TensorSpec | None = None) -> None:
        self.parts = {tensor.name: (tensor.dtype, tensor.shape) for tensor in (weight, scale)}
        self.aside = {} if order is None else {order.name: (order.dtype, order.shape)}
        self.slabs, (self.rows, self.cols) = 1, weight.shape
        self.col_step, self._scale = max(1, self.cols), scale.name

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        return {self.name: rows * self.cols, self._scale: 4 * rows}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`.

        Raises:
            UsageError: a scale is negative or not finite.
        """
        strip = {name: np.empty(size, np.uint8) for name, size in self.strip_bytes(last - first).items()}
        read(self.name, first * self.cols, strip[self.name])
        read(self._scale, 4 * first, strip[self._scale])
        for name in self.aside:
            strip[name] = np.empty(1, np.uint8)
            read(name, 0, strip[name])
        check_scales(strip[self._scale].view("<f4").astype(np.float64), self._scale)
        return strip

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        return strip[self.name].reshape(rows, self.cols)[:, first:last] ^ _SIGN

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        np.bitwise_xor(codes, _SIGN, out=into[self.name].reshape(rows, self.cols)[:, first : first + cols])

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`."""
        values = strip[self.name].view(np.int8).reshape(rows, self.cols)[:, first:last].astype(np.float64)
        values *= self._steps(strip)
        return values

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`."""
        if not values.size:
            return 0
        steps = self._steps(into)
        rows, cols = values.shape
        bad = misfits(
            values,
            127 * steps[:, 0],
            0.5 / 127,
            lambda chosen, mask: _on_steps(chosen, steps[mask]),
            lambda: self.decode(into, rows, first, first + cols),
        )
        made = np.abs(values[bad]).max(axis=-1, initial=0.0) / (127 * _PER_UNIT)
        stored = into[self._scale].view("<f4")
        stored[bad] = made
        return len(made)

    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """See `Coded`. Where a scale is zero all codes mean the same, and stay."""
        rows, cols = values.shape
        steps = self._steps(strip)
        found = _on_steps(values, steps)
        flat = steps[:, 0] == 0
        if flat.any():
            found.low[flat] = found.high[flat] = self.codes(strip, rows, first, first + cols)[flat]
            found.error[flat] = -values[flat]
        return found

    def _steps(self, strip: Strip) -> NDArray[np.float64]:
        """The step of each row, (rows, 1)."""
        return strip[self._scale].view("<f4").astype(np.float64)[:, None] * _PER_UNIT


def _on_steps(values: NDArray[np.float64], steps: NDArray[np.float64]) -> Neighbours:
    narrow = steps.astype(np.float32)
    found = on_steps(values, -127 * narrow, narrow, 254)
    # Codes begin at -127, which is 1.
    return Neighbours(found.low + np.uint8(1), found.high + np.uint8(1), found.error, found.gap)
