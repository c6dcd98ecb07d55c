"""What a config of ModelOpt declares: NVFP4 or FP8 weights, in config.json or in a file of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.quantized.expected_scales import ScaleLayout, check_fp8
from weight_edit.checkpoint.quantized.nvfp4_layout import WHOLE, check_nvfp4
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.errors import UnsupportedError, UsageError

OWN_CONFIG = "hf_quant_config.json"
"""The file in which ModelOpt says how weights are quantised; config.json has the same since version 0.33."""

Tensors = Mapping[str, TensorInfo]

_NVFP4, _FP8 = ("NVFP4", "W4A16_NVFP4"), {"FP8": "tensor", "FP8_PER_CHANNEL_PER_TOKEN": "channel"}
_AGAIN = "give the checkpoint that it was quantised from (its card names it), and quantise the edited one again"


def declared(content: object) -> dict[str, Any]:
    """The `quantization_config` that config.json would have for ModelOpt's own file.

    Args:
        content: of that file, parsed.

    Raises:
        UsageError: it says no algorithm.
    """
    inner = content.get("quantization") if isinstance(content, Mapping) else None
    if not isinstance(inner, Mapping):
        raise UsageError(f"{OWN_CONFIG} has no object `quantization`; fetch the file again")
    return {"quant_method": "modelopt", "quantization": dict(inner)}


def without(config: Mapping[str, Any], modules: Sequence[str]) -> dict[str, Any]:
    """A config, or the content of ModelOpt's own file, in which more modules are left alone.

    Args:
        config: in either form; it is left as it is.
        modules: whole names, or with `*` at the end.
    """
    nested = isinstance(config.get("quantization"), Mapping)
    inner = dict(config["quantization"] if nested else config)
    key = "exclude_modules" if nested or "exclude_modules" in inner else "ignore"
    inner[key] = list(dict.fromkeys([*(inner.get(key) or ()), *modules]))
    layers = inner.get("quantized_layers")
    if isinstance(layers, Mapping):
        inner["quantized_layers"] = {name: layer for name, layer in layers.items() if name not in set(modules)}
    return {**config, "quantization": inner} if nested else inner


def modelopt(config: Mapping[str, Any]) -> Callable[[Tensors], None]:
    """The check of the tensors that a config of ModelOpt declares.

    Raises:
        UnsupportedError: an algorithm whose weights are not edited.
    """
    inner = config.get("quantization")
    said = inner if isinstance(inner, Mapping) else config
    layers = said.get("quantized_layers")
    algorithms = [said.get("quant_algo")]
    if algorithms == ["MIXED_PRECISION"] and isinstance(layers, Mapping):
        algorithms = [layer.get("quant_algo") if isinstance(layer, Mapping) else None for layer in layers.values()]
    for algorithm in algorithms:
        if not isinstance(algorithm, str) or algorithm not in (*_NVFP4, *_FP8):
            raise UnsupportedError(
                f"config.json: the weights are quantised (modelopt: {printable(str(algorithm), 60)}), of which only "
                f"{', '.join((*_NVFP4, *_FP8))} are edited; {_AGAIN}"
            )
    strategies = frozenset(_FP8[algorithm] for algorithm in algorithms if algorithm in _FP8)
    layout = ScaleLayout("modelopt", frozenset(), strategies, frozenset())

    def check(tensors: Tensors) -> None:
        if strategies:
            check_fp8(layout, tensors)
        if any(algorithm in _NVFP4 for algorithm in algorithms):
            if not any(name.endswith(WHOLE) for name in tensors):
                raise UsageError(
                    f"config.json says that weights are NVFP4 (quant_method modelopt), but none of the {len(tensors)} "
                    f"tensors is named *{WHOLE}; the two do not belong together"
                )
            check_nvfp4(tensors)

    return check
