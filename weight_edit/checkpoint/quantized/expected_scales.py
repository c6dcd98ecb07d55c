"""The check that quantised tensors have the scales of their format, by headers alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.fp8 import FP8
from weight_edit.checkpoint.quantized.nvfp4_layout import is_group_scale
from weight_edit.checkpoint.quantized.scales import E8M0, SCALES
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.errors import UnsupportedError, UsageError

_GROUP_BYTES = 16
"""Bytes of an MXFP4 group: 32 numbers of 4 bits under one scale."""


@dataclass(frozen=True)
class ScaleLayout:
    """The scale layout of FP8 weights that a config declares.

    Attributes:
        method: the config's `quant_method`.
        inverse, plain: by what scales named `*_scale_inv` and `*_scale` may count: "tensor", "channel", "block".
        blocks: sizes of blocks, rows by columns.
    """

    method: str
    inverse: frozenset[str]
    plain: frozenset[str]
    blocks: frozenset[tuple[int, int]]


def check_fp8(layout: ScaleLayout, tensors: Mapping[str, TensorInfo]) -> None:
    """Check that every FP8 tensor has a scale of a shape that the config allows.

    Raises:
        UsageError: no FP8 tensor at all, a scale that is missing or has another shape.
        UnsupportedError: another kind of FP8, or scales that are no plain floating numbers.
    """
    # Scales may be E8M0, or of groups of 4-bit codes; whatever else is F8 is weights.
    weights = [
        info
        for name, info in tensors.items()
        if info.dtype.startswith("F8_") and info.dtype != E8M0 and not is_group_scale(name, tensors)
    ]
    if not weights:
        raise UsageError(
            f"config.json says that weights are FP8 (quant_method {layout.method}), but none of the {len(tensors)}"
            " tensors is; the two do not belong together"
        )
    for info in weights:
        what = f"{printable(info.shard)}: tensor {printable(info.name)!r}"
        if info.dtype != FP8:
            raise UnsupportedError(f"{what} is {info.dtype}; of FP8 only {FP8} is edited")
        inverse, plain = tensors.get(f"{info.name}_scale_inv"), tensors.get(f"{info.name}_scale")
        scale, strategies = (plain, layout.plain) if inverse is None else (inverse, layout.inverse)
        if scale is None:
            raise UsageError(f"{what} is {FP8} without a scale ({printable(info.name)}_scale_inv or _scale is missing)")
        if scale.dtype not in SCALES:
            raise UnsupportedError(
                f"{printable(scale.shard)}: tensor {printable(scale.name)!r} holds scales as {scale.dtype}; only"
                f" {', '.join(SCALES)} are edited"
            )
        if not any(_fits(scale.shape, info.shape, strategy, layout.blocks) for strategy in strategies):
            raise UsageError(
                f"{printable(scale.shard)}: tensor {printable(scale.name)!r} is {scale.shape}, no scale by"
                f" {' or '.join(sorted(strategies)) or 'anything'} for a weight of {info.shape} under this config.json"
            )


def check_mxfp4(tensors: Mapping[str, TensorInfo]) -> None:
    """Check that `*_blocks` and `*_scales` come in pairs of matching shapes.

    Raises:
        UsageError: none at all, one without the other, wrong shapes or dtypes.
    """
    found = [info for name, info in tensors.items() if name.endswith("_blocks")]
    if not found:
        raise UsageError(
            f"config.json says that weights are MXFP4, but none of the {len(tensors)} tensors is named *_blocks; the"
            " two do not belong together"
        )
    for info in found:
        what = f"{printable(info.shard)}: tensor {printable(info.name)!r}"
        scales = tensors.get(info.name.removesuffix("_blocks") + "_scales")
        if scales is None:
            raise UsageError(f"{what} is MXFP4 without a scale (*_scales is missing)")
        if (info.dtype, scales.dtype) != ("U8", "U8"):
            raise UsageError(f"{what}: MXFP4 blocks and scales must be U8, not {info.dtype} and {scales.dtype}")
        if info.shape[-1:] != (_GROUP_BYTES,) or len(info.shape) < 3 or scales.shape != info.shape[:-1]:
            raise UsageError(
                f"{what} is {info.shape} and its scales are {scales.shape}; MXFP4 needs (..., groups, {_GROUP_BYTES})"
                " and (..., groups)"
            )
    for name, info in tensors.items():
        if name.endswith("_scales") and info.dtype == "U8" and name.removesuffix("_scales") + "_blocks" not in tensors:
            raise UsageError(
                f"{printable(info.shard)}: tensor {printable(name)!r} has no MXFP4 blocks (*_blocks is missing)"
            )


def block_size(value: object, key: str) -> tuple[int, int]:
    """The size of a block that a config has under a key, rows by columns.

    Raises:
        UsageError: it is no size.
    """
    parts = value.split("x") if isinstance(value, str) else value
    if isinstance(parts, list | tuple) and len(parts) == 2:
        sizes = [int(part) if isinstance(part, str) and part.isdecimal() and len(part) < 10 else part for part in parts]
        if all(type(size) is int and size > 0 for size in sizes):
            return sizes[0], sizes[1]
    raise UsageError(
        f"config.json: {key} is {printable(repr(value), 60)}, which is no pair of sizes such as [128, 128]"
    )


def _fits(scale: tuple[int, ...], weight: tuple[int, ...], strategy: str, blocks: frozenset[tuple[int, int]]) -> bool:
    if strategy == "tensor":
        single = all(n == 1 for n in scale)
        experts = weight[:-2]
        return single or (bool(experts) and scale in (experts, (*experts, 1), (*experts, 1, 1)))
    if len(weight) < 2:
        return False
    experts, (rows, columns) = weight[:-2], weight[-2:]
    if strategy == "channel":
        return scale in ((*experts, rows), (*experts, rows, 1))
    for down, across in blocks:
        grid = (*experts, -(-rows // down), -(-columns // across))
        # Fused experts have a row of scales for each of their halves, even where one block holds both.
        fused = bool(experts) and len(scale) == len(grid) and scale[-2] == 2 > grid[-2]
        if scale == grid or (fused and (*scale[:-2], scale[-1]) == (*grid[:-2], grid[-1])):
            return True
    return False
