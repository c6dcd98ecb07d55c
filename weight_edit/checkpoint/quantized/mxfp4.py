"""MXFP4 as in gpt-oss: groups of 32 e2m1 codes, two per byte, with one power of two each.

A number is its code's times `2 ** (scale - 127)`. On disk experts lie transposed against transformers' parameters:
`down_proj` there is (experts, in, out), and `down_proj_blocks` holds (experts, out, in) with the groups along `in`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.minifloat import E2M1
from weight_edit.checkpoint.quantized.scales import BIAS, E8M0, check_scales, read_scales
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Strip

GROUP = 32
"""The number of codes that share a scale."""

_BYTES = GROUP // 2
_PAIRS = np.tile(E2M1.numbers, 16) + 1j * np.repeat(E2M1.numbers, 16)
"""The two numbers of every byte, the low half's first, as one complex number for lookup."""


class Mxfp4(Coded):
    """MXFP4 experts, each of shape (rows, groups * 32).

    Args:
        blocks: U8 (experts, rows, groups, 16).
        scales: U8 (experts, rows, groups).
    """

    format = E2M1

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
        pairs = strip[self.name].reshape(rows, -1)
        codes = np.empty((rows, self.cols), np.uint8)
        np.bitwise_and(pairs, 15, out=codes[:, 0::2])
        np.right_shift(pairs, 4, out=codes[:, 1::2])
        return codes[:, first:last]

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`. All columns at once."""
        np.bitwise_or(codes[:, 0::2], codes[:, 1::2] << 4, out=into[self.name].reshape(codes.shape[0], -1))

    def scales(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.float64]:
        """See `Coded`."""
        scales = read_scales(strip[self._scale], E8M0).reshape(rows, self._groups)
        return np.repeat(scales, GROUP, axis=1)[:, first:last]

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`. A byte at a time."""
        values = _PAIRS[strip[self.name]].view(np.float64).reshape(-1, GROUP)
        values *= read_scales(strip[self._scale], E8M0)[:, None]
        return values.reshape(rows, self.cols)[:, first:last]

    def encode(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> None:
        """See `Storage`. All columns at once."""
        groups = values.reshape(-1, GROUP)
        peaks = np.maximum(groups.max(axis=1), -groups.min(axis=1))
        exponents = _exponents(peaks)
        codes = E2M1.encode(groups * np.ldexp(1.0, -exponents)[:, None])
        self.put_codes(codes.reshape(values.shape), first, into)
        np.copyto(into[self._scale], exponents + BIAS, casting="unsafe")


def _exponents(peaks: NDArray[np.float64]) -> NDArray[np.int64]:
    """The exponent of each group's scale: the least one with no error above half a step.

    The usual one leaves the largest number between 4 and 8, where it is cut to 6. That is the nearest number under the
    next power too, up to 7, and all smaller numbers have the finer steps. Above 7 the cut is more than half a step.
    """
    exponents = np.frexp(peaks)[1].astype(np.int64) - 3
    exponents += np.ldexp(peaks, -exponents) > 7
    exponents[peaks == 0] = 0
    return np.clip(exponents, -BIAS, BIAS)
