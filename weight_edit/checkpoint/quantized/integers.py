"""Integer codes under a scale and a zero point for each group: `scale * (code - zero)`.

Scales and zero points stay as they are, so that an edit changes codes alone. A group gets a new scale only where the
edited numbers do not fit it: where the squared error of cutting them to the group's ends is larger than what rounding
costs on its steps (their square over twelve for each number), and larger than what wider steps would add to that. Zero
points always stay.
"""

from abc import abstractmethod
from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.grids import on_steps
from weight_edit.checkpoint.quantized.scales import store_scales
from weight_edit.checkpoint.tensor.numbers import STORED, decode
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import Bytes, Strip
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.utils.fixed_sums import row_squares

Floats = NDArray[np.float32]

DTYPES = ("F16", "BF16", "F32")
"""The dtypes of scales."""


class Integers(Coded):
    """Integer codes, all of a tensor with the same number of bits.

    Attributes:
        groups_along: the axis along which groups of numbers share a scale.
        group: how many do; None where scales stay whatever an edit does, because a strip has no whole groups.
    """

    keeps_grid = True
    groups_along: int
    group: int | None

    def __init__(self, scales: TensorSpec, bits: int) -> None:
        self._scales = scales
        self._last = (1 << bits) - 1
        self._item = STORED[scales.dtype].itemsize
        if scales.dtype == "F16":
            self.limit = self._last * 65504.0

    @abstractmethod
    def _sizes(self, rows: int) -> Mapping[str, int]:
        """Name -> the bytes in a strip of some rows, of what is read with them too; not of what is `undivided`."""

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        sizes = self._sizes(rows)
        return {part: sizes[part] for part in self.parts}

    def rows_of(self, strip: Strip, first: int, last: int) -> Strip:
        """See `Storage`."""
        begin, end = self._sizes(first), self._sizes(last)
        return {part: raw[begin[part] : end[part]] if part in end else raw for part, raw in strip.items()}

    @abstractmethod
    def _grid(self, strip: Strip, rows: int, first: int, last: int) -> tuple[Floats, Floats | float]:
        """(scales, zero points) of a strip's columns, in shapes that broadcast to (rows, last - first)."""

    @abstractmethod
    def _zeros(self, strip: Strip, rows: int, first: int, last: int) -> Floats | float:
        """The zero points of a strip's groups, in a shape that broadcasts to that of `_stored_scales`."""

    def _stored_scales(self, strip: Strip, first: int, last: int) -> NDArray[np.uint16 | np.uint32]:
        """A writable view of the scales of a strip's columns as bits, with one row or column for each group."""
        raise ValueError(f"{self.name}: scales are not made anew")

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`."""
        values = memory("decode", rows * (last - first), np.float64).reshape(rows, last - first)
        np.copyto(values, self.codes(strip, rows, first, last))
        scales, zeros = self._grid(strip, rows, first, last)
        values -= zeros
        values *= scales
        return values

    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """See `Coded`."""
        rows, cols = values.shape
        scales, zeros = self._grid(strip, rows, first, first + cols)
        return on_steps(values, scales * -zeros, scales, self._last)

    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Coded`."""
        if self.group is None or not values.size:
            return 0
        rows, cols = values.shape
        bits = self._stored_scales(into, first, first + cols)
        points = self._zeros(into, rows, first, first + cols)
        zeros = np.broadcast_to(np.asarray(points, np.float64), bits.shape)
        count, length = 0, values.shape[self.groups_along]
        whole = length // self.group
        for begin, end, size in ((0, whole, self.group), (whole, whole + 1, length - whole * self.group)):
            if not size or begin == end:
                continue
            span = slice(begin * self.group, begin * self.group + (end - begin) * size)
            if self.groups_along == 0:
                groups = values[span].reshape(end - begin, size, cols).swapaxes(1, 2)
                count += self._fitted(groups, bits[begin:end], zeros[begin:end])
            else:
                groups = values[:, span].reshape(rows, end - begin, size)
                count += self._fitted(groups, bits[:, begin:end], zeros[:, begin:end])
        return count

    def _fitted(
        self, groups: NDArray[np.float64], bits: NDArray[np.uint16 | np.uint32], zeros: NDArray[np.float64]
    ) -> int:
        """Make the scales of groups anew that do not fit them; how many those are.

        Args:
            groups: (a, b, numbers of a group).
            bits: the stored scales, (a, b); written.
            zeros: (a, b).
        """
        steps = _numbers(bits, self._scales.dtype)
        ends = np.stack([steps * -zeros, steps * (self._last - zeros)])
        beyond = np.maximum(groups.max(axis=2) - ends.max(axis=0), ends.min(axis=0) - groups.min(axis=2))
        places = np.nonzero(beyond > np.abs(steps) / 2)
        if not places[0].size:
            return 0
        numbers, old, zero = groups[places], steps[places], zeros[places]
        raw = self._reaching(numbers, np.where(old < 0, -1.0, 1.0), zero)
        new = _numbers(raw, self._scales.dtype)
        noise = [numbers.shape[1] * np.square(step) / 12 for step in (old, new)]
        cut = [self._cut(numbers, step, zero) for step in (old, new)]
        better = (cut[0] > noise[0]) & (cut[0] + noise[0] > cut[1] + noise[1]) & np.isfinite(new)
        bits[tuple(place[better] for place in places)] = raw[better]
        return int(np.count_nonzero(better))

    def _reaching(
        self, numbers: NDArray[np.float64], signs: NDArray[np.float64], zeros: NDArray[np.float64]
    ) -> NDArray[np.uint16 | np.uint32]:
        """The bits of the least scales of given signs under which groups reach their largest and smallest number."""
        largest, smallest = np.maximum(numbers.max(axis=1), 0), np.maximum(-numbers.min(axis=1), 0)
        above, below = self._last - zeros, zeros
        up, down = np.where(signs > 0, above, below), np.where(signs > 0, below, above)
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = np.maximum(np.where(up > 0, largest / up, 0), np.where(down > 0, smallest / down, 0))
        size = 8 * self._item
        raw = store_scales(wanted, self._scales.dtype).view(f"<u{self._item}")
        raw |= (signs < 0).astype(raw.dtype) << raw.dtype.type(size - 1)
        return raw

    def _cut(
        self, numbers: NDArray[np.float64], steps: NDArray[np.float64], zeros: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The sum of squares by which the numbers of each group lie beyond its ends."""
        ends = np.stack([steps * -zeros, steps * (self._last - zeros)])
        with np.errstate(invalid="ignore", over="ignore"):
            beyond = np.maximum(numbers - ends.max(axis=0)[:, None], ends.min(axis=0)[:, None] - numbers)
            return row_squares(np.maximum(beyond, 0))


def read_scales(raw: Bytes, scales: TensorSpec) -> Floats:
    """Scales, flat and in float32, which has all numbers of their dtypes; negative ones pass, as some quantisers write.

    Raises:
        UsageError: one is not finite.
    """
    found = _floats(raw, scales.dtype)
    bad = int(found.size - np.count_nonzero(np.isfinite(found)))
    if bad:
        raise UsageError(
            f"tensor {printable(scales.name)!r} has {bad} scales that are not finite; the source is damaged, "
            "fetch it again"
        )
    return found


def check_scales(scales: TensorSpec, shapes: tuple[tuple[int, ...], ...], what: str) -> None:
    """Refuse scales of another dtype or shape than a weight needs.

    Args:
        shapes: those that fit.
        what: the weight and its shape, for the message.

    Raises:
        UsageError: names the tensor.
    """
    if scales.dtype not in DTYPES:
        raise UsageError(
            f"tensor {printable(scales.name)!r} is {scales.dtype}, where scales are {', '.join(DTYPES)}; "
            "fetch the checkpoint again"
        )
    if scales.shape not in shapes:
        raise UsageError(
            f"tensor {printable(scales.name)!r} is {scales.shape}, which fits no {what}: "
            f"{' or '.join(map(str, shapes))}; fetch the checkpoint again"
        )


def check_matrix(info: TensorSpec, dtype: str) -> None:
    """Refuse codes that are no matrix of a dtype, or empty.

    Raises:
        UsageError: names the tensor.
        UnsupportedError: stacks of matrices.
    """
    if info.dtype != dtype:
        raise UsageError(
            f"tensor {printable(info.name)!r} is {info.dtype}, where codes are {dtype}; fetch the checkpoint again"
        )
    if len(info.shape) != 2 or not prod(info.shape):
        raise UnsupportedError(f"tensor {printable(info.name)!r} is {info.shape}; only matrices are edited")


def _floats(raw: Bytes, dtype: str) -> Floats:
    """Stored numbers in float32, in new memory."""
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.view(STORED[dtype]).astype(np.float32)


def _numbers(bits: NDArray[np.uint16 | np.uint32], dtype: str) -> NDArray[np.float64]:
    """Scales given as their bits, in the shape of these."""
    raw = np.ascontiguousarray(bits).reshape(-1).view(np.uint8)
    return decode(raw, dtype).reshape(bits.shape)
