"""GPTQ: integer codes packed along the inputs, with scales and zero points for groups of inputs.

On disk a layer lies transposed: `qweight` has a word for some inputs (rows) of each output (column). A number is
`scales[g] * (code - zero[g])`, where `g_idx` gives each input's group. Zero points are packed along the outputs; the
format "gptq" stores them less one, "gptq_v2" as they are. That is undone by adding one to each of a whole word at once,
so that a zero point of 0 borrows from the next one and gives it back; of three bits, which cross words, by adding to
each alone.
"""

from abc import abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.format import Format, StoredTensors
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.integers import (
    Floats,
    Integers,
    check_matrix,
    check_scales,
    read_scales,
)
from weight_edit.checkpoint.quantized.packing import WORD, pack, period, unpack, words_of
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Storage, Strip
from weight_edit.errors import UnsupportedError, UsageError

BITS = (2, 3, 4, 8)
"""Bits of a code."""

SHORT = 1024
"""The most inputs of a layer that are read at once because all of an output's share a scale."""


class ByInputs(Integers):
    """Codes of shape (inputs, outputs), with one scale and one zero point for each output and group of inputs.

    Args:
        codes: the tensor with the codes.
        scales: (groups, outputs).
        zeros: the packed zero points, I32.
        inputs: how many there are.
        bits: of a code.
        group: inputs of a group, one behind the other; None where an index says which group each is of.
        step: rows that lie together in words.
    """

    groups_along = 0

    def __init__(
        self,
        codes: TensorSpec,
        scales: TensorSpec,
        zeros: TensorSpec,
        *,
        inputs: int,
        bits: int,
        group: int | None,
        step: int,
    ) -> None:
        super().__init__(scales, bits)
        self._codes, self._packed_zeros, self._bits = codes, zeros, bits
        self.slabs, self.rows, self.cols = 1, inputs, scales.shape[1]
        self._groups = scales.shape[0]
        self._size = group if self._groups > 1 else None
        # A strip has whole groups, so that one of all inputs is made anew only where it is short.
        self.group = group if group is not None and (self._groups > 1 or inputs <= SHORT) else None
        self.row_step = step if self.group is None else int(np.lcm(self.group, step))
        written, read = ((codes,), (scales, zeros)) if self.group is None else ((codes, scales), (zeros,))
        self.parts = {tensor.name: (tensor.dtype, tensor.shape) for tensor in written}
        self.aside = {tensor.name: (tensor.dtype, tensor.shape) for tensor in read}

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the numbers, (inputs, outputs)."""
        return self.rows, self.cols

    def _sizes(self, rows: int) -> Mapping[str, int]:
        """See `Integers`. Without an order of groups, or with one alone, a strip has all of their scales."""
        sizes = {self.name: self._code_bytes(rows)}
        if self._size is not None or self.group is not None:
            groups = -(-rows // (self._size or self.rows))
            sizes[self._scales.name] = groups * self.cols * self._item
            sizes[self._packed_zeros.name] = groups * self._packed_zeros.shape[1] * 4
        return sizes

    def _code_bytes(self, rows: int) -> int:
        """The bytes of the codes of some rows, from the first one on too."""
        return self._codes.shape[1] * 4 * (rows * self._codes.shape[0] // self.rows)

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`. Scales and zero points are those of the rows' groups, or all where an index orders them.

        Raises:
            UsageError: a scale that is not finite.
        """
        codes = np.empty(self._code_bytes(last) - self._code_bytes(first), np.uint8)
        read(self.name, self._code_bytes(first), codes)
        begin, end = (0, self._groups) if self._size is None else (first // self._size, -(-last // self._size))
        strip = {self.name: codes}
        for tensor, size in ((self._scales, self._item), (self._packed_zeros, 4)):
            width = tensor.shape[1] * size
            strip[tensor.name] = np.empty((end - begin) * width, np.uint8)
            read(tensor.name, begin * width, strip[tensor.name])
        read_scales(strip[self._scales.name], self._scales)
        return strip

    def _stored_scales(self, strip: Strip, first: int, last: int) -> NDArray[np.uint16 | np.uint32]:
        """See `Integers`."""
        return strip[self._scales.name].view(f"<u{self._item}").reshape(-1, self.cols)[:, first:last]

    def _zeros(self, strip: Strip, rows: int, first: int, last: int) -> Floats:
        """See `Integers`."""
        words = strip[self._packed_zeros.name].view("<u4").reshape(-1, self._packed_zeros.shape[1])
        return self._unpacked_zeros(words)[:, first:last].astype(np.float32)

    @abstractmethod
    def _unpacked_zeros(self, words: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The zero points in the rows of their packed words, (groups, outputs)."""

    def _grid(self, strip: Strip, rows: int, first: int, last: int) -> tuple[Floats, Floats | float]:
        """See `Integers`."""
        scales = read_scales(strip[self._scales.name], self._scales).reshape(-1, self.cols)[:, first:last]
        return self._spread(scales, strip, rows), self._spread(self._zeros(strip, rows, first, last), strip, rows)

    def _spread(self, grid: Floats, strip: Strip, rows: int) -> Floats:
        """Numbers of groups, (groups, columns), as numbers of rows, in a shape that broadcasts."""
        return grid if len(grid) == 1 else np.repeat(grid, self._size or 1, axis=0)[:rows]


class Gptq(ByInputs):
    """A layer of GPTQ.

    Args:
        index: which group each input is of, I32 (inputs,); None where the file has none.
        ordered: whether groups are of inputs one behind the other, which the index is then held to.
        less_one: whether stored zero points are one less than what they mean.
    """

    def __init__(
        self,
        codes: TensorSpec,
        scales: TensorSpec,
        zeros: TensorSpec,
        index: TensorSpec | None,
        *,
        bits: int,
        group: int,
        ordered: bool,
        less_one: bool,
    ) -> None:
        step = period(bits)[0]
        inputs = codes.shape[0] * WORD // bits
        super().__init__(codes, scales, zeros, inputs=inputs, bits=bits, group=group if ordered else None, step=step)
        self._index, self._less_one = index, less_one
        self._ordered_by = group if ordered else None
        if index is not None:
            self.aside = {**self.aside, index.name: (index.dtype, index.shape)}

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self._bits} bits, {self._ordered_by}, {self._less_one})"

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `ByInputs`.

        Raises:
            UsageError: a scale that is not finite, an index out of range or out of the order that the config says.
        """
        strip = dict(super().load(read, slab, first, last, memory))
        if self._index is not None:
            raw = np.empty((last - first) * 4, np.uint8)
            read(self._index.name, first * 4, raw)
            self._check_index(raw.view("<i4"), first, last)
            strip[self._index.name] = raw
        return strip

    def _check_index(self, index: NDArray[np.int32], first: int, last: int) -> None:
        name = printable(self._index.name) if self._index is not None else ""
        if self._ordered_by is None:
            bad = int(np.count_nonzero((index < 0) | (index >= self._groups)))
            if bad:
                raise UsageError(
                    f"tensor {name!r} has {bad} entries that name none of the {self._groups} groups; the source is "
                    "damaged, fetch it again"
                )
        elif not np.array_equal(index, np.arange(first, last) // self._ordered_by):
            raise UsageError(
                f"tensor {name!r} orders the inputs otherwise than in groups of {self._ordered_by}, though "
                "config.json says desc_act false; set it to true if the file was made with act-order, or fetch the "
                "checkpoint again"
            )

    def _sizes(self, rows: int) -> Mapping[str, int]:
        index = {} if self._index is None else {self._index.name: rows * 4}
        return {**super()._sizes(rows), **index}

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        words = strip[self.name].view("<u4").reshape(-1, self.cols)[:, first:last]
        return unpack(words, self._bits, rows, axis=0)

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        words = into[self.name].view("<u4").reshape(-1, self.cols)
        words[:, first : first + codes.shape[1]] = pack(codes, self._bits, axis=0)

    def _unpacked_zeros(self, words: NDArray[np.uint32]) -> NDArray[np.uint8]:
        if not self._less_one:
            return unpack(words, self._bits, self.cols)
        if self._bits == 3:
            return (unpack(words, 3, self.cols) + np.uint8(1)) & np.uint8(7)
        ones = np.uint32(sum(1 << shift for shift in range(0, WORD, self._bits)))
        return unpack(words + ones, self._bits, self.cols)

    def _spread(self, grid: Floats, strip: Strip, rows: int) -> Floats:
        if self._ordered_by is None and self._index is not None and len(grid) > 1:
            return grid[strip[self._index.name].view("<i4")]
        return super()._spread(grid, strip, rows)


def parts_of(name: str, stored: StoredTensors) -> dict[str, TensorSpec]:
    """The tensors of a layer of GPTQ or AWQ by the ends of their names; an index of groups is there or not.

    Raises:
        UsageError: one is missing.
    """
    stem = name.removesuffix("weight")
    found = {}
    for end in ("qweight", "scales", "qzeros", "g_idx"):
        info = stored.tensors.get(stem + end)
        if info is not None:
            found[end] = TensorSpec(info.name, info.dtype, info.shape)
        elif end != "g_idx":
            raise UsageError(f"tensor {printable(stem + 'qweight')!r} has no {printable(stem + end)!r}; fetch it again")
    return found


def _bits(parts: Mapping[str, TensorSpec]) -> int:
    """The bits of a code, by the zero points: as many of them as outputs are packed in words.

    Raises:
        UsageError: shapes that fit no number of bits.
    """
    codes, zeros = parts["qweight"], parts["qzeros"]
    check_matrix(codes, "I32")
    check_matrix(zeros, "I32")
    outputs = codes.shape[1]
    for bits in BITS:
        fits = codes.shape[0] % period(bits)[1] == 0
        if fits and outputs % period(bits)[0] == 0 and words_of(outputs, bits) == zeros.shape[1]:
            return bits
    raise UsageError(
        f"tensor {printable(zeros.name)!r} is {zeros.shape}, which are no zero points of 2, 3, 4 or 8 bits for "
        f"{printable(codes.name)!r} of {codes.shape}; fetch the checkpoint again"
    )


def _group_sizes(config: Mapping[str, object]) -> list[int]:
    """The group sizes that a config names, for all modules or for some."""
    dynamic = config.get("dynamic")
    settings = [config, *(dynamic.values() if isinstance(dynamic, Mapping) else ())]
    found = [each.get("group_size") for each in settings if isinstance(each, Mapping)]
    return [size for size in found if type(size) is int and (size > 0 or size == -1)] or [128]


def _in_order(config: Mapping[str, object]) -> bool:
    """Whether no module was quantised in the order of its activations."""
    dynamic = config.get("dynamic")
    settings = [config, *(dynamic.values() if isinstance(dynamic, Mapping) else ())]
    return not any(each.get("desc_act") for each in settings if isinstance(each, Mapping))


def layer(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of a layer of GPTQ; see `formats.storage_of`."""
    parts = parts_of(name, stored)
    bits = _bits(parts)
    codes, scales, index = parts["qweight"], parts["scales"], parts.get("g_idx")
    inputs, outputs = codes.shape[0] * WORD // bits, codes.shape[1]
    sizes = {inputs if size == -1 else min(size, inputs) for size in _group_sizes(stored.config)}
    shapes = {size: (-(-inputs // size), outputs) for size in sizes}
    check_scales(scales, tuple(sorted(shapes.values())), f"weight of {inputs} inputs and {outputs} outputs")
    if parts["qzeros"].shape[0] != scales.shape[0]:
        raise UsageError(
            f"tensor {printable(parts['qzeros'].name)!r} is {parts['qzeros'].shape}, but the scales are of "
            f"{scales.shape[0]} groups; fetch the checkpoint again"
        )
    if index is not None and (index.dtype, index.shape) != ("I32", (inputs,)):
        raise UsageError(
            f"tensor {printable(index.name)!r} is {index.dtype} {index.shape}, where the index of groups is I32 "
            f"{(inputs,)}; fetch the checkpoint again"
        )
    ordered = _in_order(stored.config) or scales.shape[0] == 1
    if not ordered and index is None:
        raise UsageError(
            f"tensor {printable(codes.name)!r} has no {printable(name.removesuffix('weight') + 'g_idx')!r}, though "
            "config.json says desc_act; fetch the checkpoint again"
        )
    return Gptq(
        codes,
        scales,
        parts["qzeros"],
        index,
        bits=bits,
        group=next(size for size, shape in shapes.items() if shape == scales.shape),
        ordered=ordered,
        less_one=form_of(stored.config) == "gptq",
    )


def _shape(name: str, stored: StoredTensors) -> tuple[int, ...]:
    parts = parts_of(name, stored)
    return parts["qweight"].shape[0] * WORD // _bits(parts), parts["qweight"].shape[1]


def form_of(config: Mapping[str, object]) -> str:
    """The layout of the tensors that a config says, "gptq" where it says none."""
    found = config.get("checkpoint_format") or config.get("format") or "gptq"
    return str(getattr(found, "value", found)).lower()


def check_config(config: Mapping[str, object], again: str) -> None:
    """Refuse layouts and numbers of bits that are not edited, by `quantization_config`.

    Args:
        again: what to do instead.

    Raises:
        UnsupportedError: names the layout.
        UsageError: no number of bits.
    """
    form = "marlin" if config.get("is_marlin_format") else form_of(config)
    if form not in ("gptq", "gptq_v2"):
        raise UnsupportedError(
            f"config.json: the weights are quantised (gptq) in the layout {printable(form, 40)!r}; of GPTQ only "
            f"checkpoint_format gptq and gptq_v2 are edited; {again}"
        )
    dynamic = config.get("dynamic")
    for settings in (config, *(dynamic.values() if isinstance(dynamic, Mapping) else ())):
        bits = settings.get("bits", 4) if isinstance(settings, Mapping) else 4
        if bits not in BITS or isinstance(bits, bool):
            raise UnsupportedError(
                f"config.json: the weights are quantised (gptq) with bits {printable(repr(bits), 40)}; "
                f"{', '.join(map(str, BITS))} are edited; {again}"
            )


def check_tensors(config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> None:
    """Check by headers that every layer of GPTQ has its tensors, in shapes that fit.

    Raises:
        UsageError: names the tensor; no layer of GPTQ at all.
        UnsupportedError: stacks of matrices.
    """
    stored = StoredTensors(tensors, config)
    for name in GPTQ.parameters_among(stored, "GPTQ's", "named *.qweight"):
        layer(name, stored, 0)


GPTQ = Format(
    name="GPTQ",
    codes=".qweight",
    parameter=".weight",
    holds=lambda info, stored: stored.config.get("quant_method") == "gptq",
    storage=layer,
    beside=("{stem}scales", "{stem}qzeros", "{stem}g_idx"),
    shape=_shape,
    transposed=True,
)
"""The entry of the table."""
