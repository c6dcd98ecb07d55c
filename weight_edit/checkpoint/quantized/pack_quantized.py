"""Packed integers of compressed-tensors: `weight_packed` has a stream of bits for each output.

The shape is in a tensor of its own, `weight_shape`, because the last word of a row may be filled in part. Codes are
stored as they are counted from the lowest one on, and zero points likewise.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.by_outputs import ByOutputs, scales_and_zeros
from weight_edit.checkpoint.quantized.compressed_groups import Weights, check_integers, declared
from weight_edit.checkpoint.quantized.format import Format, StoredTensors
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.integers import check_matrix
from weight_edit.checkpoint.quantized.packing import pack, unpack, words_of
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Storage, Strip
from weight_edit.errors import UsageError

FORM = "pack-quantized"
BITS = (2, 3, 4, 5, 6, 7, 8)


class PackQuantized(ByOutputs):
    """A weight of packed codes; see `ByOutputs`."""

    @property
    def _row_bytes(self) -> int:
        return self._codes.shape[1] * 4

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        words = strip[self.name].view("<u4").reshape(rows, -1)
        # Columns begin with a whole word, see `col_step`.
        begin = first * self._bits // 32
        return unpack(words[:, begin : words_of(last, self._bits)], self._bits, last - first)

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        words = into[self.name].view("<u4").reshape(rows, -1)
        begin = first * self._bits // 32
        words[:, begin : words_of(first + cols, self._bits)] = pack(codes, self._bits)


def layer(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of a packed weight; see `formats.storage_of`.

    Raises:
        UsageError: a tensor is missing, or of a shape or dtype that does not fit; names it.
        UnsupportedError: stacks of matrices.
    """
    info = stored.tensors[f"{name}_packed"]
    codes = TensorSpec(info.name, info.dtype, info.shape)
    check_matrix(codes, "I32")
    groups = declared(stored.config).get(FORM, [])
    outputs, inputs = _shape(name, stored)
    bits = _bits(codes, outputs, inputs, groups)
    scales, zeros, index = scales_and_zeros(name, stored, (outputs, inputs), groups, bits)
    found = PackQuantized(codes, scales, zeros, index, shape=(outputs, inputs), bits=bits)
    kept = stored.tensors[f"{name}_shape"]
    found.aside = {**found.aside, kept.name: (kept.dtype, kept.shape)}
    return found


def _bits(codes: TensorSpec, outputs: int, inputs: int, groups: list[Weights]) -> int:
    """The bits of a code: of those that the config names, what fills the words of a row.

    Raises:
        UsageError: none does.
    """
    for bits in sorted({weights["num_bits"] for weights in groups}):
        if codes.shape == (outputs, words_of(inputs, bits)):
            return int(bits)
    raise UsageError(
        f"tensor {printable(codes.name)!r} is {codes.shape}, which is no {outputs} by {inputs} numbers of the bits that"
        " config.json says; fetch the checkpoint again"
    )


def _shape(name: str, stored: StoredTensors) -> tuple[int, int]:
    """The shape of a weight, as `weight_shape` says.

    Raises:
        UsageError: there is none, or one that is no shape of a matrix.
    """
    kept = f"{name}_shape"
    info = stored.tensors.get(kept)
    if info is None:
        raise UsageError(
            f"tensor {printable(name + '_packed')!r} has no {printable(kept)!r}; fetch the checkpoint again"
        )
    if info.dtype not in ("I64", "I32") or info.shape != (2,):
        raise UsageError(
            f"tensor {printable(kept)!r} is {info.dtype} {info.shape}, where a shape is two integers; fetch the "
            "checkpoint again"
        )
    outputs, inputs = (int(n) for n in np.frombuffer(stored.read(kept), f"<i{8 if info.dtype == 'I64' else 4}"))
    packed = stored.tensors[f"{name}_packed"].shape
    fits = len(packed) == 2 and outputs == packed[0] and packed[1] <= inputs <= 32 * packed[1]
    if outputs < 1 or inputs < 1 or not fits:
        raise UsageError(
            f"tensor {printable(kept)!r} says {outputs} by {inputs}, which {printable(name + '_packed')!r} of {packed} "
            "cannot hold; fetch the checkpoint again"
        )
    return outputs, inputs


def check_config(
    form: str, groups: list[Weights], config: Mapping[str, Any]
) -> Callable[[Mapping[str, TensorInfo]], None]:
    """The check of tensors that groups of packed weights call for.

    Raises:
        UnsupportedError: weights that are not edited.
    """
    check_integers(form, groups, BITS)

    def check(tensors: Mapping[str, TensorInfo]) -> None:
        stored = StoredTensors(tensors, config)
        for name in PACK_QUANTIZED.parameters_among(stored, FORM, "named *.weight_packed"):
            _check_headers(name, tensors)

    return check


def _check_headers(name: str, tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse what headers alone tell of a weight: its tensors, and their dtypes."""
    info = tensors[f"{name}_packed"]
    check_matrix(TensorSpec(info.name, info.dtype, info.shape), "I32")
    for end in ("_scale", "_shape"):
        if name + end not in tensors:
            raise UsageError(
                f"tensor {printable(info.name)!r} has no {printable(name + end)!r}; fetch the checkpoint again"
            )


PACK_QUANTIZED = Format(
    name="compressed-tensors' packed integers",
    codes=".weight_packed",
    parameter=".weight",
    holds=lambda info, stored: info.dtype == "I32" and stored.config.get("quant_method") == "compressed-tensors",
    storage=layer,
    beside=("{name}_scale", "{name}_zero_point", "{name}_shape", "{name}_g_idx", "{stem}input_scale"),
    shape=_shape,
)
"""The entry of the table."""
