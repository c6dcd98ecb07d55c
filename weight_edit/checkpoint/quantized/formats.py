"""The storage of each tensor, by a checkpoint's tensors and its `quantization_config`; the table of formats."""

from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.gguf.types import BY_NAME
from weight_edit.checkpoint.quantized.awq import AWQ
from weight_edit.checkpoint.quantized.bnb_layout import BITSANDBYTES
from weight_edit.checkpoint.quantized.format import Format, SmallReader, StoredTensors, no_content
from weight_edit.checkpoint.quantized.fp8 import FP8, Fp8Block, Fp8Scaled, TensorSpec
from weight_edit.checkpoint.quantized.ggml import GGML_BLOCKS, Ggml
from weight_edit.checkpoint.quantized.gptq import GPTQ
from weight_edit.checkpoint.quantized.int8 import INT8
from weight_edit.checkpoint.quantized.mxfp4 import GROUP, Mxfp4
from weight_edit.checkpoint.quantized.nvfp4_layout import NVFP4, is_group_scale
from weight_edit.checkpoint.quantized.pack_quantized import PACK_QUANTIZED
from weight_edit.checkpoint.quantized.scales import POWERS, SCALES
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.checkpoint.tensor.storage import Plain, Storage
from weight_edit.errors import UnsupportedError, UsageError

BLOCKS, PACKED_SCALES = "_blocks", "_scales"
"""The suffixes of an MXFP4 parameter's two tensors."""

_SCALES = ("_scale_inv", "_scale")
"""The suffixes of an FP8 weight's scales: fine-grained FP8's, and compressed-tensors'."""

_DEFAULT_BLOCK = (128, 128)


def storage_of(
    name: str,
    tensors: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
    axis: int,
    read: SmallReader = no_content,
) -> Storage:
    """The storage of one parameter's numbers in a checkpoint.

    Args:
        name: the parameter's name, as the model has it: that of an MXFP4 one lacks `_blocks`.
        tensors: all tensors of the checkpoint by name.
        config: `quantization_config` of config.json; empty where there is none.
        axis: along which axis of the numbers as they lie on disk an edit's vectors run. Some formats lie transposed
            (see `format_of`): for MXFP4 the numbers are (experts, rows, columns) and, other than in transformers,
            `d_model` is along the rows (axis 1).
        read: gives the bytes of small tensors.

    Raises:
        UnsupportedError: a format that cannot be edited.
        UsageError: the scales are missing, or of a shape or dtype that does not fit the weight.
        ValueError: no such axis.
    """
    stored = StoredTensors(tensors, config, read)
    found = format_of(name, stored)
    if found is not None:
        return found.storage(name, stored, axis)
    info = tensors.get(name)
    if info is None:
        raise UnsupportedError(f"tensor {printable(name)!r} is not in the checkpoint{_instead(name, tensors, config)}")
    if info.dtype in STORED and scale_of(name, tensors) is None:
        return Plain(name, info.dtype, info.shape, axis)
    if info.dtype in GGML_BLOCKS:
        return _ggml(info, axis)
    if info.dtype in BY_NAME and BY_NAME[info.dtype].numbers > 1:
        raise UnsupportedError(
            f"tensor {printable(name)!r} is stored as {info.dtype}, a type of GGUF's that is not edited; give the "
            "model in another type, or edit the one that it was converted from, and convert the result"
        )
    raise UnsupportedError(f"tensor {printable(name)!r} is stored as {info.dtype}{_method(config)}; {_INSTEAD}")


def format_of(name: str, stored: StoredTensors) -> Format | None:
    """The format of a quantised parameter; None if it is stored plainly, or not as is known here."""
    for each in FORMATS:
        codes = each.codes_of(name)
        if codes is not None and codes in stored.tensors and each.parameter_in(stored.tensors[codes], stored) == name:
            return each
    return None


def format_name(info: TensorInfo, stored: StoredTensors) -> str:
    """What the format is called of the parameter whose codes a tensor holds, or the type that a plain one has."""
    return next((each.name for each in FORMATS if each.parameter_in(info, stored) is not None), info.dtype)


def parameter_in(info: TensorInfo, stored: StoredTensors) -> str | None:
    """The name of the quantised parameter whose codes a tensor holds; None if it holds none."""
    found = (each.parameter_in(info, stored) for each in FORMATS)
    return next((name for name in found if name is not None), None)


def codes_among(name: str, tensors: Collection[str]) -> str:
    """The name of the tensor with a quantised parameter's codes.

    Args:
        name: the parameter's.
        tensors: the names of all tensors.

    Raises:
        KeyError: there is none.
    """
    for each in FORMATS:
        codes = each.codes_of(name)
        if codes is not None and codes in tensors:
            return codes
    raise KeyError(name)


def quantised_names(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of all quantised parameters, as `storage_of` takes them."""
    stored = StoredTensors(tensors, config)
    return tuple(name for info in tensors.values() if (name := parameter_in(info, stored)) is not None)


def scale_of(name: str, tensors: Mapping[str, TensorInfo]) -> TensorInfo | None:
    """The tensor with an FP8 weight's scales; None if there is none."""
    return next((tensors[name + end] for end in _SCALES if name + end in tensors), None)


_INSTEAD = "edit the checkpoint that it was quantised from, and quantise the result"


def _method(config: Mapping[str, Any]) -> str:
    method = config.get("quant_method")
    return f" ({printable(str(method), 40)})" if method else ""


def _instead(name: str, tensors: Mapping[str, TensorInfo], config: Mapping[str, Any]) -> str:
    """The end of a message on a missing tensor: the tensor found in its place, if any."""
    stem = name.removesuffix("weight")
    like = [other for other in tensors if other.startswith(stem) and not other.endswith(("bias", "scale"))]
    if not like or not config:
        return "; its layout is not understood"
    return f" but {printable(like[0])!r}, {tensors[like[0]].dtype}{_method(config)}, is; {_INSTEAD}"


def _holds_mxfp4(info: TensorInfo, stored: StoredTensors) -> bool:
    """Whether a tensor named like MXFP4's codes has scales, or is of their shape."""
    scaled = info.name.removesuffix(BLOCKS) + PACKED_SCALES in stored.tensors
    return scaled or (info.dtype == "U8" and len(info.shape) == 4)


def _check_axis(name: str, axis: int, dims: int) -> None:
    """Raise `UnsupportedError` unless the axis is one of a quantised tensor's last two."""
    if axis % dims < dims - 2:
        raise UnsupportedError(
            f"tensor {printable(name)!r} is quantised and can be edited along its last two axes only"
        )


def _ggml(info: TensorInfo, axis: int) -> Storage:
    if len(info.shape) < 2:
        raise UnsupportedError(
            f"tensor {printable(info.name)!r} is {info.dtype} of shape {info.shape}; only matrices are edited"
        )
    _check_axis(info.name, axis, len(info.shape))
    return Ggml(info.name, info.dtype, info.shape)


def _mxfp4(name: str, stored: StoredTensors, axis: int) -> Storage:
    tensors = stored.tensors
    blocks = tensors[name + BLOCKS]
    scales = tensors.get(name + PACKED_SCALES)
    if scales is None:
        raise UsageError(
            f"tensor {printable(blocks.name)!r} has no scales: {printable(name + PACKED_SCALES)!r} is missing; "
            "fetch the checkpoint again"
        )
    for info in (blocks, scales):
        if info.dtype != "U8":
            raise UnsupportedError(f"tensor {printable(info.name)!r} is stored as {info.dtype}, where MXFP4 has U8")
    if len(blocks.shape) != 4 or blocks.shape[-1] != 16:
        raise UnsupportedError(
            f"tensor {printable(blocks.name)!r} is {blocks.shape}, where MXFP4 has (experts, rows, groups, 16)"
        )
    if scales.shape != blocks.shape[:-1]:
        raise UsageError(
            f"tensor {printable(scales.name)!r} is {scales.shape}, but the blocks have {blocks.shape[:-1]}; "
            "fetch the checkpoint again"
        )
    _check_axis(blocks.name, axis, 3)
    return Mxfp4(_tensor(blocks), _tensor(scales))


def _tensor(info: TensorInfo) -> TensorSpec:
    return TensorSpec(info.name, info.dtype, info.shape)


def _mxfp4_shape(name: str, stored: StoredTensors) -> tuple[int, ...]:
    *rows, groups, _ = (*stored.tensors[name + BLOCKS].shape, 1, 1)[:4]
    return (*rows, groups * GROUP)


def _fp8(name: str, stored: StoredTensors, axis: int) -> Storage:
    info, tensors, config = stored.tensors[name], stored.tensors, stored.config
    scale = scale_of(info.name, tensors)
    if scale is None:
        raise UsageError(
            f"tensor {printable(info.name)!r} is {FP8} without scales: there is no "
            f"{printable(info.name + _SCALES[0])!r} "
            f"or {printable(info.name + _SCALES[1])!r}; fetch the checkpoint again"
        )
    if config.get("transform_config"):
        raise UnsupportedError(
            f"tensor {printable(info.name)!r} is stored in rotated form (transform_config); {_INSTEAD}"
        )
    powers = config.get("scale_fmt") == "ue8m0"
    if scale.dtype not in SCALES or (scale.dtype == "U8" and not powers):
        raise UsageError(f"tensor {printable(scale.name)!r} is {scale.dtype}, which no FP8 weight's scales are")
    if len(info.shape) not in (2, 3):
        raise UnsupportedError(
            f"tensor {printable(info.name)!r} is {FP8} of shape {info.shape}; only matrices are edited"
        )
    _check_axis(info.name, axis, len(info.shape))
    block = _block(info.shape, scale.shape, config)
    powers = powers or scale.dtype in POWERS
    if block is not None:
        return Fp8Block(_tensor(info), _tensor(scale), block, powers)
    if prod(scale.shape) == prod(info.shape[:-2]):
        return Fp8Scaled(_tensor(info), _tensor(scale), powers)
    raise UsageError(
        f"tensor {printable(scale.name)!r} is {scale.shape}, which fits no way to scale "
        f"{printable(info.name)!r} of shape "
        f"{info.shape}: by tensor, by row, or by blocks of {_shown_blocks(config)}"
    )


def _block(shape: tuple[int, ...], scale: tuple[int, ...], config: Mapping[str, Any]) -> tuple[int, int] | None:
    """The block size of a grid of scales; None if the scales are no grid."""
    *experts, rows, cols = shape
    for down, across in (*_blocks(config), (1, max(1, cols))):
        grid = (-(-rows // down), -(-cols // across))
        if scale == (*experts, *grid):
            return down, across
    # Some leave the axis of length one out.
    return (1, max(1, cols)) if scale == (*experts, rows) and not experts else None


def _blocks(config: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    """The block sizes that a config names, or fine-grained FP8's default."""
    found = [config.get("weight_block_size", _DEFAULT_BLOCK if config.get("quant_method") == "fp8" else None)]
    groups = config.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and weights.get("strategy") == "block":
            found.append(weights.get("block_structure"))
    for block in found:
        if isinstance(block, list | tuple) and len(block) == 2 and all(type(n) is int and n > 0 for n in block):
            yield block[0], block[1]


def _shown_blocks(config: Mapping[str, Any]) -> str:
    return " or ".join(f"{down} x {across}" for down, across in _blocks(config)) or "a size that the config names"


FORMATS: tuple[Format, ...] = (
    Format(
        name="MXFP4",
        codes=BLOCKS,
        holds=_holds_mxfp4,
        storage=_mxfp4,
        beside=("{name}" + PACKED_SCALES,),
        shape=_mxfp4_shape,
        transposed=True,
    ),
    Format(
        name="FP8",
        holds=lambda info, stored: info.dtype == FP8 and not is_group_scale(info.name, stored.tensors),
        storage=_fp8,
        beside=("{name}_scale_inv", "{name}_scale", "{stem}input_scale", "{stem}activation_scale"),
    ),
    *NVFP4,
    *BITSANDBYTES,
    GPTQ,
    AWQ,
    PACK_QUANTIZED,
    INT8,
)
"""All formats that are edited; of two that would hold the same tensor, the first does."""
