"""AWQ in its gemm layout: 4-bit codes packed along the outputs, with scales and zero points for groups of inputs.

On disk a layer lies transposed, (inputs, outputs). A word holds eight outputs in an order of its own, which saves its
kernel a step: from the lowest four bits up they are 0, 2, 4, 6, 1, 3, 5, 7. Zero points are packed likewise.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.format import Format, StoredTensors
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.gptq import ByInputs, parts_of
from weight_edit.checkpoint.quantized.integers import check_matrix, check_scales
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Storage, Strip
from weight_edit.errors import UnsupportedError, UsageError

_PLACES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Of the eight outputs of a word, the one that its four bits from 4 i on hold."""

_PER_WORD = len(_PLACES)


class Awq(ByInputs):
    """A layer of AWQ.

    Args:
        codes: I32 (inputs, outputs / 8).
        scales: (groups, outputs).
        zeros: I32 (groups, outputs / 8).
        group: inputs of a group.
    """

    col_step = packed = _PER_WORD

    def __init__(self, codes: TensorSpec, scales: TensorSpec, zeros: TensorSpec, *, group: int) -> None:
        super().__init__(codes, scales, zeros, inputs=codes.shape[0], bits=4, group=group, step=1)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self._size})"

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        words = strip[self.name].view("<u4").reshape(rows, -1)
        return _unpacked(words[:, first // _PER_WORD : -(-last // _PER_WORD)])[:, : last - first]

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        eights = codes.reshape(rows, -1, _PER_WORD)
        words = np.zeros((rows, cols // _PER_WORD), np.uint32)
        for number, place in enumerate(_PLACES):
            words |= eights[:, :, place].astype(np.uint32) << np.uint32(4 * number)
        whole = into[self.name].view("<u4").reshape(rows, -1)
        whole[:, first // _PER_WORD : (first + cols) // _PER_WORD] = words

    def _unpacked_zeros(self, words: NDArray[np.uint32]) -> NDArray[np.uint8]:
        return _unpacked(words)


def _unpacked(words: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The codes in words, (rows, 8 times the words), in the outputs' order."""
    codes = np.empty((*words.shape, _PER_WORD), np.uint8)
    for number, place in enumerate(_PLACES):
        np.bitwise_and((words >> np.uint32(4 * number)).astype(np.uint8), np.uint8(15), out=codes[:, :, place])
    return codes.reshape(len(words), -1)


def layer(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of a layer of AWQ; see `formats.storage_of`.

    Raises:
        UsageError: a tensor is missing, or of a shape or dtype that does not fit; names it.
        UnsupportedError: stacks of matrices.
    """
    parts = parts_of(name, stored)
    codes, scales, zeros = parts["qweight"], parts["scales"], parts["qzeros"]
    check_matrix(codes, "I32")
    check_matrix(zeros, "I32")
    inputs, outputs = codes.shape[0], codes.shape[1] * _PER_WORD
    said = stored.config.get("group_size", stored.config.get("q_group_size", 128))
    group = min(said, inputs) if type(said) is int and said > 0 else inputs
    check_scales(scales, ((-(-inputs // group), outputs),), f"weight of {inputs} inputs and {outputs} outputs")
    if zeros.shape != (scales.shape[0], codes.shape[1]):
        raise UsageError(
            f"tensor {printable(zeros.name)!r} is {zeros.shape}, but the zero points of {printable(codes.name)!r} are "
            f"{(scales.shape[0], codes.shape[1])}; fetch the checkpoint again"
        )
    return Awq(codes, scales, zeros, group=group)


def _shape(name: str, stored: StoredTensors) -> tuple[int, ...]:
    codes = stored.tensors[name.removesuffix("weight") + "qweight"]
    return (*codes.shape[:-1], codes.shape[-1] * _PER_WORD) if codes.shape else ()


def check_config(config: Mapping[str, object], again: str) -> None:
    """Refuse layouts and numbers of bits that are not edited, by `quantization_config`.

    Args:
        again: what to do instead.

    Raises:
        UnsupportedError: names the layout.
    """
    form = str(config.get("version") or config.get("format") or config.get("checkpoint_format") or "gemm").lower()
    if config.get("backend") == "llm-awq":
        form = "llm-awq"
    if form != "gemm":
        raise UnsupportedError(
            f"config.json: the weights are quantised (awq) in the layout {printable(form, 40)!r}; of AWQ only version "
            f"gemm is edited; {again}"
        )
    bits = config.get("bits", config.get("w_bit", 4))
    if bits != 4 or isinstance(bits, bool):
        raise UnsupportedError(
            f"config.json: the weights are quantised (awq) with bits {printable(repr(bits), 40)}; 4 are edited; {again}"
        )


def check_tensors(config: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> None:
    """Check by headers that every layer of AWQ has its tensors, in shapes that fit.

    Raises:
        UsageError: names the tensor; no layer of AWQ at all.
        UnsupportedError: stacks of matrices.
    """
    stored = StoredTensors(tensors, config)
    for name in AWQ.parameters_among(stored, "AWQ's", "named *.qweight"):
        layer(name, stored, 0)


AWQ = Format(
    name="AWQ",
    codes=".qweight",
    parameter=".weight",
    holds=lambda info, stored: stored.config.get("quant_method") == "awq",
    storage=layer,
    beside=("{stem}scales", "{stem}qzeros"),
    shape=_shape,
    transposed=True,
)
"""The entry of the table."""
