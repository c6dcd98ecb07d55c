"""Integer codes as compressed-tensors stores them: (outputs, inputs), with scales by tensor, by output or by group.

A number is `scale * (code - zero)`; without zero points, `zero` is the middle code. Of an output all groups lie in one
row, so that a scale is made anew wherever there is more than one for the tensor.
"""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.compressed_groups import Weights, sizes_of
from weight_edit.checkpoint.quantized.format import StoredTensors
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.integers import Floats, Integers, check_scales, read_scales
from weight_edit.checkpoint.quantized.packing import period, unpack, words_of
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes, Strip
from weight_edit.errors import UsageError


class ByOutputs(Integers):
    """Codes of shape (outputs, inputs).

    Args:
        codes: the tensor with the codes.
        scales: (1,) for the tensor, else (outputs, groups); (outputs,) for one group too.
        zeros: zero points in the shape of the scales: I8, or I32 packed along the outputs; None without.
        index: which group each input is of, I32 (inputs,); None where groups are of inputs one behind the other.
        shape: outputs and inputs.
        bits: of a code.
    """

    groups_along = 1

    def __init__(
        self,
        codes: TensorSpec,
        scales: TensorSpec,
        zeros: TensorSpec | None,
        index: TensorSpec | None,
        *,
        shape: tuple[int, int],
        bits: int,
    ) -> None:
        super().__init__(scales, bits)
        self._codes, self._bits, self._points, self._index = codes, bits, zeros, index
        self.slabs, self.rows, self.cols = 1, *shape
        self._one = single(scales.shape) and shape[0] > 1
        self._groups = 1 if self._one or len(scales.shape) < 2 else scales.shape[1]
        self._size = -(-self.cols // self._groups)
        scattered = index is not None and self._groups > 1
        self.group = None if self._one or scattered else self._size
        # Column ranges begin with whole words, and with whole groups where their scales may change.
        self.packed = period(bits)[0]
        step = self.packed if self.group is None else int(np.lcm(self._size, self.packed))
        self.col_step = min(step, self.cols)
        written, read = ((codes,), (scales, zeros, index)) if self.group is None else ((codes, scales), (zeros, index))
        self.parts = {tensor.name: (tensor.dtype, tensor.shape) for tensor in written}
        self.aside = {tensor.name: (tensor.dtype, tensor.shape) for tensor in read if tensor is not None}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the numbers, (outputs, inputs)."""
        return self.rows, self.cols

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self._bits} bits, {self._size})"

    def _sizes(self, rows: int) -> Mapping[str, int]:
        """See `Integers`."""
        sizes = {self.name: rows * self._row_bytes}
        if not self._one:
            sizes[self._scales.name] = rows * self._groups * self._item
            if self._points is not None:
                sizes[self._points.name] = rows * self._groups
        return sizes

    @property
    @abstractmethod
    def _row_bytes(self) -> int:
        """The bytes of a row's codes."""

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`. Zero points come unpacked, one per byte.

        Raises:
            UsageError: a scale that is not finite, an index out of range.
        """
        rows = last - first
        strip = {self.name: np.empty(rows * self._row_bytes, np.uint8)}
        read(self.name, first * self._row_bytes, strip[self.name])
        begin, count = (0, 1) if self._one else (first * self._groups, rows * self._groups)
        strip[self._scales.name] = np.empty(count * self._item, np.uint8)
        read(self._scales.name, begin * self._item, strip[self._scales.name])
        read_scales(strip[self._scales.name], self._scales)
        if self._points is not None:
            strip[self._points.name] = self._loaded_zeros(self._points, read, first, last)
        if self._index is not None:
            strip[self._index.name] = self._loaded_index(self._index, read)
        return strip

    def _loaded_zeros(self, zeros: TensorSpec, read: ByteReader, first: int, last: int) -> Bytes:
        """The zero points of some rows as codes, flat."""
        if zeros.dtype == "I8":
            begin, count = (0, 1) if self._one else (first * self._groups, (last - first) * self._groups)
            raw = np.empty(count, np.uint8)
            read(zeros.name, begin, raw)
            return raw + np.uint8(self._middle)
        codes_per, words_per = period(self._bits)
        skipped, all_words = first // codes_per, words_of(self.rows, self._bits)
        until = min(-(-last // codes_per) * words_per, all_words)
        raw = np.empty((until - skipped * words_per) * self._groups * 4, np.uint8)
        read(zeros.name, skipped * words_per * self._groups * 4, raw)
        words = raw.view("<u4").reshape(-1, self._groups)
        some = unpack(words, self._bits, last - skipped * codes_per, axis=0)[first - skipped * codes_per :]
        return np.ascontiguousarray(some).reshape(-1)

    def _loaded_index(self, index: TensorSpec, read: ByteReader) -> Bytes:
        raw = np.empty(self.cols * 4, np.uint8)
        read(index.name, 0, raw)
        groups = raw.view("<i4")
        bad = int(np.count_nonzero((groups < 0) | (groups >= self._groups)))
        if bad:
            raise UsageError(
                f"tensor {printable(index.name)!r} has {bad} entries that name none of the {self._groups} groups; the "
                "source is damaged, fetch it again"
            )
        return raw

    @property
    def _middle(self) -> int:
        """The code of zero without zero points."""
        return (self._last + 1) // 2

    def _stored_scales(self, strip: Strip, first: int, last: int) -> NDArray[np.uint16 | np.uint32]:
        """See `Integers`."""
        return (
            strip[self._scales.name].view(f"<u{self._item}").reshape(-1, self._groups)[:, self._covering(first, last)]
        )

    def _zeros(self, strip: Strip, rows: int, first: int, last: int) -> Floats | float:
        """See `Integers`."""
        if self._points is None:
            return float(self._middle)
        return self._of_groups(strip[self._points.name].astype(np.float32), first, last)

    def _grid(self, strip: Strip, rows: int, first: int, last: int) -> tuple[Floats, Floats | float]:
        """See `Integers`."""
        scales = self._of_groups(read_scales(strip[self._scales.name], self._scales), first, last)
        zeros = self._zeros(strip, rows, first, last)
        return self._spread(scales, strip, first, last), (
            zeros if isinstance(zeros, float) else self._spread(zeros, strip, first, last)
        )

    def _of_groups(self, numbers: Floats, first: int, last: int) -> Floats:
        """Numbers of groups, one row for each row of the strip, or one for all."""
        if self._one:
            return numbers.reshape(1, 1)
        whole = numbers.reshape(-1, self._groups)
        return whole if self._index is not None else whole[:, self._covering(first, last)]

    def _covering(self, first: int, last: int) -> slice:
        """The groups of some columns."""
        return slice(first // self._size, -(-last // self._size))

    def _spread(self, grid: Floats, strip: Strip, first: int, last: int) -> Floats:
        """Numbers of groups as numbers of columns, in a shape that broadcasts."""
        if grid.shape[1] == 1 and self._groups == 1:
            return grid
        if self._index is not None:
            return grid[:, strip[self._index.name].view("<i4")[first:last]]
        begin = first // self._size * self._size
        return np.repeat(grid, self._size, axis=1)[:, first - begin : last - begin]


def single(shape: tuple[int, ...]) -> bool:
    """Whether scales of a shape are one number."""
    return all(n == 1 for n in shape)


def scales_and_zeros(
    stem: str,
    stored: StoredTensors,
    shape: tuple[int, int],
    groups: list[Weights],
    bits: int,
) -> tuple[TensorSpec, TensorSpec | None, TensorSpec | None]:
    """The scales, zero points and index of groups of a weight, checked by their headers.

    Args:
        stem: the beginning of their names, "X.weight".
        shape: outputs and inputs.
        groups: the settings of weights in the config, of which this one's are among.
        bits: of a code.

    Raises:
        UsageError: scales are missing, or zero points that each group of the config has; or something has
            a shape or dtype that does not fit; names the tensor.
    """
    outputs, inputs = shape
    scales = _spec(f"{stem}_scale", stored)
    if scales is None:
        raise UsageError(
            f"tensor {printable(stem)!r} is quantised without {printable(stem + '_scale')!r}; fetch it again"
        )
    by_group = tuple((outputs, inputs // size) for size in sorted(sizes_of(groups)) if inputs % size == 0)
    check_scales(
        scales,
        ((), (1,), (1, 1), (outputs,), (outputs, 1), *by_group),
        f"weight of {outputs} outputs and {inputs} inputs",
    )
    by_row = scales.shape[1] if len(scales.shape) == 2 else 1
    zeros = _spec(f"{stem}_zero_point", stored)
    if zeros is None and groups and all(weights.get("symmetric") is False for weights in groups):
        raise UsageError(
            f"tensor {printable(stem)!r} has no {printable(stem + '_zero_point')!r}, though config.json says symmetric "
            "false; fetch the checkpoint again"
        )
    if zeros is not None:
        packed = (words_of(outputs, bits), by_row)
        fits = zeros.shape == scales.shape if zeros.dtype == "I8" else (zeros.dtype, zeros.shape) == ("I32", packed)
        if not fits:
            raise UsageError(
                f"tensor {printable(zeros.name)!r} is {zeros.dtype} {zeros.shape}, where zero points are I8 "
                f"{scales.shape} or I32 {packed}; fetch the checkpoint again"
            )
    index = _spec(f"{stem}_g_idx", stored)
    if index is not None and (index.dtype, index.shape) != ("I32", (inputs,)):
        raise UsageError(
            f"tensor {printable(index.name)!r} is {index.dtype} {index.shape}, where the index of groups is I32 "
            f"{(inputs,)}; fetch the checkpoint again"
        )
    return scales, zeros, index


def _spec(name: str, stored: StoredTensors) -> TensorSpec | None:
    info = stored.tensors.get(name)
    return None if info is None else TensorSpec(info.name, info.dtype, info.shape)
