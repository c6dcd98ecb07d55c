"""What a config of compressed-tensors declares: groups of modules, each with a format of its own."""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.expected_scales import ScaleLayout, block_size, check_fp8
from weight_edit.checkpoint.quantized.nvfp4_layout import check_nvfp4
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.errors import UnsupportedError, UsageError

PACKED = ".weight_packed"
"""How the names of packed codes end."""

Group = Mapping[str, Any]
CheckTensors = Callable[[Mapping[str, TensorInfo]], None]
_AGAIN = "give the checkpoint that it was quantised from (its card names it), and quantise the edited one again"


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
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not all(isinstance(group, Mapping) for group in groups.values()):
        raise UsageError("config.json: compressed-tensors needs config_groups, an object of objects")
    declared: dict[str, list[Group]] = {}
    for group in groups.values():
        weights = group.get("weights")
        if weights is None:
            continue
        if not isinstance(weights, Mapping):
            raise UsageError("config.json: weights of a group in config_groups must be an object")
        form = group.get("format") or config.get("format")
        if not isinstance(form, str) or form not in _FORMS:
            refuse(form, "config.json")
        declared.setdefault(form, []).append(weights)
    checks = [_FORMS[form](form, weights) for form, weights in declared.items()]

    def check(tensors: Mapping[str, TensorInfo]) -> None:
        packed = next((name for name in tensors if name.endswith(PACKED)), None)
        if packed is not None and not any(form.endswith("pack-quantized") for form in declared):
            refuse("pack-quantized, which config.json does not say", f"tensor {printable(packed)!r}")
        for each in checks:
            each(tensors)

    return check


def refuse(form: object, where: str) -> NoReturn:
    """Refuse weights that compressed-tensors has stored in a form that is not edited."""
    raise UnsupportedError(
        f"{where}: the weights are quantised (compressed-tensors, {printable(str(form), 80)}); "
        f"of that format only {EDITED} are edited; {_AGAIN}"
    )


EDITED = "8-bit floats (float-quantized by tensor, channel or block) and NVFP4 (nvfp4-pack-quantized)"
"""The forms of compressed-tensors that are edited, in words."""


def _floats(form: str, groups: list[Group]) -> CheckTensors:
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


def _nvfp4(form: str, groups: list[Group]) -> CheckTensors:
    for weights in groups:
        settings = (weights.get("num_bits"), weights.get("type"), weights.get("group_size"))
        if settings != (4, "float", 16) or not weights.get("symmetric", True):
            refuse(f"{form}: {settings[0]} bits, {settings[1]}, groups of {settings[2]}", "config.json")
    return check_nvfp4


_FORMS: Mapping[str, Callable[[str, list[Group]], CheckTensors]] = {
    "float-quantized": _floats,
    "nvfp4-pack-quantized": _nvfp4,
}
"""`format` of a group -> the check that its weights' settings call for."""
