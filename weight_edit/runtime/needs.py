"""Requirements of a config beside transformers, such as packages for quantised weights.

transformers itself is asked, with what it does before it opens any weights.
"""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.anatomy.narrow.classes import from_config
from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.source.refused import instead_of, quantization_of
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, first_line

if TYPE_CHECKING:
    from transformers import PretrainedConfig

USUAL = (None, "eager", "sdpa")
"""Implementations (of attention, experts, ...) that need no extra package."""
_OWN = ("_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation")


def check_runnable(
    config: "PretrainedConfig", stored: Mapping[str, Any], folder: Path, *, device: str, trust_remote_code: bool = False
) -> None:
    """Refuse a model that cannot run here for lack of a package or a device.

    Args:
        config: of the model.
        stored: its config.json, parsed.
        folder: where that is, for messages.
        device: where the model is to run; "auto" is all there are.

    Raises:
        UnsupportedError: names the format or the setting, and what transformers misses.
    """
    _check_quantised(config, stored, folder, device)
    asked = [(key, value) for key, value in _settings(stored) if value not in USUAL]
    if not asked:
        return
    import torch

    try:
        with torch.device("meta"):
            from_config(copy.deepcopy(config), dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
    except FOREIGN_ERRORS as error:
        key, value = asked[0]
        raise UnsupportedError(
            f"{folder / 'config.json'} asks for {key} {printable(repr(value), 60)}, which cannot be had here "
            f"({first_line(error)}); install it, or take the setting out"
        ) from error


def _check_quantised(config: "PretrainedConfig", stored: Mapping[str, Any], folder: Path, device: str) -> None:
    quantised = quantization_of(stored)
    if quantised is None:
        return
    from transformers.quantizers.auto import AutoHfQuantizer, get_hf_quantizer

    places = device if device == "auto" else {"": device}
    try:
        known = AutoHfQuantizer.supports_quant_method(dict(quantised))
        why = "no such method is known"
        if known:
            get_hf_quantizer(copy.deepcopy(config), None, places, True, {})
            return
    except FOREIGN_ERRORS as error:
        why = first_line(error)
    name, instead = instead_of(quantised)
    raise UnsupportedError(
        f"{folder / 'config.json'}: the weights are quantised ({name}), and transformers cannot load them here "
        f"({why}); install what is missing, or {instead}"
    )


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """The implementations that a config or a nested config names."""
    if not isinstance(config, Mapping):
        return
    for key, value in config.items():
        if key in _OWN:
            # By part of the model, for one of several parts.
            yield from ((key, one) for one in (value.values() if isinstance(value, Mapping) else [value]))
        elif isinstance(value, Mapping):
            yield from _settings(value)
