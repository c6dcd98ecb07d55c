"""The `quantization_config` of a checkpoint after some modules become unquantised.

Each method has a list of modules to leave alone. transformers takes an entry for a module's name, a beginning of it
that ends at a dot, an ending, or a regular expression; vLLM for a whole name. Whole names serve both.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from weight_edit.checkpoint.quantized import modelopt
from weight_edit.checkpoint.quantized.formats import quantised_names
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.numbers import STORED

_EXPERTS = "experts"
_LISTS = ("modules_to_not_convert", "ignored_layers")
_OTHER_LISTS = {"bitsandbytes": "llm_int8_skip_modules"}


def config_without(
    config: Mapping[str, Any], names: Sequence[str], left: Mapping[str, TensorInfo]
) -> dict[str, Any] | None:
    """The quantisation config without some tensors; None if nothing quantised is left.

    Args:
        config: `quantization_config`; it is left as it is.
        names: the tensors, as `storage_of` takes them.
        left: the source's tensors without them; where none of these is quantised, nothing is.

    Returns:
        A new one, or None when the key goes away.
    """
    if not quantised_names(left, config):
        return None
    if config.get("quant_method") == "gptq":
        return _gptq(config, names, left)
    if config.get("quant_method") == "modelopt":
        return modelopt.without(config, modelopt_modules(names))
    changed = dict(config)
    if "config_groups" in config:
        changed["ignore"] = _longer(config.get("ignore"), [_ignored(name) for name in names])
        return changed
    modules = [_module(name) for name in names]
    usual = _OTHER_LISTS.get(str(config.get("quant_method")), _LISTS[0])
    lists = [key for key in (*_LISTS, *_OTHER_LISTS.values()) if config.get(key) is not None]
    if not lists:
        # Without a list transformers leaves the unembedding alone by itself; with one, only what it says.
        return changed | {usual: _longer(_plain_modules(left), modules)}
    return changed | {key: _longer(config[key], modules) for key in lists}


def _gptq(config: Mapping[str, Any], names: Sequence[str], left: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """A config of GPTQ, which has a list of the modules to convert, and patterns of names for exceptions to it.

    transformers goes by the first, and takes whole names too; others go by the patterns.
    """
    converted = [[_module(name) for name in quantised_names(left, config)]]
    spared: dict[str, dict[str, Any]] = {f"-:^{re.escape(_module(name))}$": {} for name in names}
    return {**config, "modules_in_block_to_quantize": converted, "dynamic": {**spared, **(config.get("dynamic") or {})}}


def modelopt_modules(names: Sequence[str]) -> list[str]:
    """The entries of ModelOpt's lists for some tensors, which end with `*` for all experts of a layer."""
    return [f"{_module(name)}*" if experts_of(name) else _module(name) for name in names]


def experts_of(name: str) -> str | None:
    """The name of the experts that a tensor belongs to (`model.layers.0.mlp.experts`), or None."""
    path = name.split(".")
    return ".".join(path[: path.index(_EXPERTS) + 1]) if _EXPERTS in path[:-1] else None


def _longer(listed: Sequence[str] | None, more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*(listed or ()), *more]))


def _module(name: str) -> str:
    """The module converted as a whole: the experts of a layer, or the parameter's own module."""
    return experts_of(name) or name.rpartition(".")[0]


def _ignored(name: str) -> str:
    """The entry for compressed-tensors' `ignore`, which counts each expert as its own module."""
    module = _module(name)
    return f"re:{re.escape(module)}\\..*" if module.endswith(".experts") else module


def _plain_modules(left: Mapping[str, TensorInfo]) -> list[str]:
    """The modules with unquantised matrices, and the unembedding, which tied models lack."""
    matrices = [
        name.removesuffix(".weight")
        for name, info in left.items()
        if name.endswith(".weight") and info.dtype in STORED and len(info.shape) == 2
    ]
    return [*matrices, "lm_head"]
