"""The quantisation methods whose weights are edited: what a config may declare, and the tensors that it calls for.

A method is read in two steps. Its function takes `quantization_config` and refuses what cannot be edited by that alone,
before any weights are fetched; what it returns takes the headers of all tensors and refuses those that do not fit.
"""

from collections.abc import Callable, Mapping
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized import awq, gptq
from weight_edit.checkpoint.quantized.bnb_layout import bitsandbytes
from weight_edit.checkpoint.quantized.compressed import compressed_tensors
from weight_edit.checkpoint.quantized.expected_scales import ScaleLayout, block_size, check_fp8, check_mxfp4
from weight_edit.checkpoint.quantized.modelopt import modelopt
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.errors import UnsupportedError

AGAIN = "give the checkpoint that it was quantised from (its card names it), and quantise the edited one again"
"""What to do about weights that were quantised with data."""

Config = Mapping[str, Any]
CheckTensors = Callable[[Mapping[str, TensorInfo]], None]


def _fp8(config: Config) -> CheckTensors:
    if config.get("expert_dtype", "fp8") != "fp8":
        raise UnsupportedError(
            f"config.json: the experts are stored as {printable(repr(config['expert_dtype']), 40)} beside FP8 weights,"
            f" which cannot be edited in place; {AGAIN}"
        )
    block = config.get("weight_block_size", (128, 128))
    strategies = frozenset({"tensor"} if block is None else {"block"})
    blocks = frozenset() if block is None else frozenset({block_size(block, "weight_block_size")})
    layout = ScaleLayout("fp8", inverse=strategies, plain=frozenset({"tensor", "channel"}), blocks=blocks)
    return lambda tensors: check_fp8(layout, tensors)


def _mxfp4(config: Config) -> CheckTensors:
    return check_mxfp4


def _gptq(config: Config) -> CheckTensors:
    gptq.check_config(config, AGAIN)
    return lambda tensors: gptq.check_tensors(config, tensors)


def _awq(config: Config) -> CheckTensors:
    awq.check_config(config, AGAIN)
    return lambda tensors: awq.check_tensors(config, tensors)


EDITED: Mapping[str, Callable[[Config], CheckTensors]] = {
    "bitsandbytes": bitsandbytes,
    "bitsandbytes_4bit": bitsandbytes,
    "bitsandbytes_8bit": bitsandbytes,
    "compressed-tensors": compressed_tensors,
    "awq": _awq,
    "fp8": _fp8,
    "modelopt": modelopt,
    "gptq": _gptq,
    "mxfp4": _mxfp4,
}
"""`quant_method` of a config -> how it is read; each of these functions raises as `refused.check_format` does."""
