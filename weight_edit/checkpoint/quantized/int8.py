"""INT8 weights of compressed-tensors, as W8A8 models have them: signed bytes with scales by tensor, output or group.

Scales of activations are left as they are: an edit changes what a writer gives, and only little what it is given.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.by_outputs import ByOutputs, scales_and_zeros
from weight_edit.checkpoint.quantized.compressed_groups import Weights, check_integers, declared
from weight_edit.checkpoint.quantized.format import Format, StoredTensors
from weight_edit.checkpoint.quantized.fp8 import TensorSpec
from weight_edit.checkpoint.quantized.integers import check_matrix
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Storage, Strip

FORMS = ("int-quantized", "naive-quantized")

_SIGN = np.uint8(0x80)
"""What turns a signed byte into its code: codes count from the lowest number on."""


class Int8(ByOutputs):
    """A weight of signed bytes; see `ByOutputs`."""

    @property
    def _row_bytes(self) -> int:
        return self.cols

    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """See `Coded`."""
        return strip[self.name].reshape(rows, self.cols)[:, first:last] ^ _SIGN

    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """See `Coded`."""
        rows, cols = codes.shape
        np.bitwise_xor(codes, _SIGN, out=into[self.name].reshape(rows, self.cols)[:, first : first + cols])


def layer(name: str, stored: StoredTensors, axis: int) -> Storage:
    """The storage of an INT8 weight; see `formats.storage_of`.

    Raises:
        UsageError: a tensor is missing, or of a shape or dtype that does not fit; names it.
        UnsupportedError: stacks of matrices.
    """
    info = stored.tensors[name]
    codes = TensorSpec(info.name, info.dtype, info.shape)
    check_matrix(codes, "I8")
    shape = (codes.shape[0], codes.shape[1])
    groups = [weights for form in FORMS for weights in declared(stored.config).get(form, [])]
    scales, zeros, index = scales_and_zeros(name, stored, shape, groups, 8)
    return Int8(codes, scales, zeros, index, shape=shape, bits=8)


def check_config(
    form: str, groups: list[Weights], config: Mapping[str, Any]
) -> Callable[[Mapping[str, TensorInfo]], None]:
    """The check of tensors that groups of INT8 weights call for.

    Raises:
        UnsupportedError: weights that are not edited.
    """
    check_integers(form, groups, (8,))

    def check(tensors: Mapping[str, TensorInfo]) -> None:
        stored = StoredTensors(tensors, config)
        for name in INT8.parameters_among(stored, f"INT8 ({form})", "an I8 *.weight"):
            layer(name, stored, 0)

    return check


INT8 = Format(
    name="compressed-tensors' INT8",
    codes=".weight",
    parameter=".weight",
    holds=lambda info, stored: info.dtype == "I8" and stored.config.get("quant_method") == "compressed-tensors",
    storage=layer,
    beside=(
        "{name}_scale",
        "{name}_zero_point",
        "{name}_g_idx",
        "{stem}input_scale",
        "{stem}input_zero_point",
        "{stem}output_scale",
        "{stem}output_zero_point",
    ),
)
"""The entry of the table."""
