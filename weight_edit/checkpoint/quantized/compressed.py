"""What a config of compressed-tensors declares: groups of modules, each with a format of its own."""

from collections.abc import Callable, Mapping
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized import int8, pack_quantized
from weight_edit.checkpoint.quantized.compressed_groups import Weights, declared, refuse
from weight_edit.checkpoint.quantized.expected_scales import ScaleLayout, block_size, check_fp8
from weight_edit.checkpoint.quantized.nvfp4_layout import check_nvfp4
from weight_edit.checkpoint.tensor.header import TensorInfo

PACKED = ".weight_packed"
"""How the names of packed codes end."""

CheckTensors = Callable[[Mapping[str, TensorInfo]], None]


def compressed_tensors(config: Mapping[str, Any]) -> CheckTensors:
    """The check of the tensors that a config of compressed-tensors declares.

    Raises:
        UnsupportedError: a format that is not edited.
        UsageError: a config that is none of compressed-tensors.
    """
    sparsity = config.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format", "dense") != "dense":
        refuse(f"sparse: {sparsity['format']}", "config.json")
    if config.get("transform_config"):
        refuse("with transforms", "config.json")
    groups = declared(config)
    for form in groups:
        if form not in _FORMS:
            refuse(form, "config.json")
    checks = [_FORMS[form](form, weights, config) for form, weights in groups.items()]

    def check(tensors: Mapping[str, TensorInfo]) -> None:
        packed = next((name for name in tensors if name.endswith(PACKED)), None)
        if packed is not None and not any(form.endswith("pack-quantized") for form in groups):
            refuse("pack-quantized, which config.json does not say", f"tensor {printable(packed)!r}")
        for each in checks:
            each(tensors)

    return check


def _floats(form: str, groups: list[Weights], config: Mapping[str, Any]) -> CheckTensors:
    strategies: set[str] = set()
    blocks: set[tuple[int, int]] = set()
    for weights in groups:
        bits, kind, strategy = weights.get("num_bits"), weights.get("type"), weights.get("strategy")
        if (bits, kind) != (8, "float") or strategy not in ("tensor", "channel", "block"):
            refuse(f"{form}: {bits} bits, {kind}, by {strategy}", "config.json")
        strategies.add(strategy)
        if strategy == "block":
            blocks.add(block_size(weights.get("block_structure"), "block_structure"))
    layout = ScaleLayout("compressed-tensors", frozenset(), frozenset(strategies), frozenset(blocks))
    return lambda tensors: check_fp8(layout, tensors)


def _nvfp4(form: str, groups: list[Weights], config: Mapping[str, Any]) -> CheckTensors:
    for weights in groups:
        settings = (weights.get("num_bits"), weights.get("type"), weights.get("group_size"))
        if settings != (4, "float", 16) or not weights.get("symmetric", True):
            refuse(f"{form}: {settings[0]} bits, {settings[1]}, groups of {settings[2]}", "config.json")
    return check_nvfp4


_FORMS: Mapping[str, Callable[[str, list[Weights], Mapping[str, Any]], CheckTensors]] = {
    "float-quantized": _floats,
    "int-quantized": int8.check_config,
    "naive-quantized": int8.check_config,
    "nvfp4-pack-quantized": _nvfp4,
    "pack-quantized": pack_quantized.check_config,
}
"""`format` of a group -> the check that its weights' settings call for, by its name, those settings and the config."""
