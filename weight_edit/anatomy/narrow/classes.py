"""The transformers class that a config stands for, and its construction."""

import inspect
from pathlib import Path
from typing import Any

from weight_edit.anatomy.narrow.sub_configs import parts
from weight_edit.errors import UnsupportedError


def auto_class(config: Any) -> Any:
    """The transformers Auto class whose mapping has the class of a config.

    The first of `config.architectures` that a mapping holds for this config decides (AutoModelForCausalLM,
    AutoModelForMultimodalLM, AutoModelForSeq2SeqLM: the last for audio-language models that are listed nowhere else).
    Else a config that holds others is a multimodal model and one that does not a causal language model. A model with
    code of its own goes through the Auto class that its `auto_map` names.
    """
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSeq2SeqLM

    autos = (AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSeq2SeqLM)
    own = getattr(config, "auto_map", None) or {}
    for auto in autos:
        if auto.__name__ in own:
            return auto
    held = {auto: _classes(auto, config) for auto in autos}
    for name in getattr(config, "architectures", None) or []:
        for auto in autos:
            if any(one.__name__ == name for one in held[auto]):
                return auto
    order = (autos[1], autos[0], autos[2]) if getattr(type(config), "sub_configs", None) else autos
    return next((auto for auto in order if held[auto]), AutoModelForCausalLM)


def _classes(auto: Any, config: Any) -> tuple[Any, ...]:
    mapping = auto._model_mapping
    if type(config) not in mapping:
        return ()
    found = mapping[type(config)]
    return tuple(found) if isinstance(found, list | tuple) else (found,)


def model_class(config: Any) -> Any:
    """The transformers class of a config.

    Raises:
        UnsupportedError: transformers has no language model for it.
    """
    found = _classes(auto_class(config), config)
    if not found:
        kind = getattr(config, "model_type", "?")
        raise UnsupportedError(f"model type '{kind}' is no language model that transformers can load")
    names = getattr(config, "architectures", None) or []
    return next((one for name in names for one in found if one.__name__ == name), found[0])


def speaking_config(config: Any) -> Any:
    """The config of the model that reads and writes text: the whole or a part of it.

    Qwen's omni models are several models in one checkpoint (a thinker, a talker, a vocoder) without a forward in
    common; transformers loads the thinker alone from it.
    """
    if getattr(config, "is_encoder_decoder", False) or _reads_tokens(config):
        return config
    if not _classes(auto_class(config), config):
        return config
    return next((part for _, part in parts(config) if _reads_tokens(part)), config)


def _reads_tokens(config: Any) -> bool:
    found = _classes(auto_class(config), config)
    return bool(found) and "input_ids" in inspect.signature(found[0].forward).parameters


def from_config(config: Any, **options: Any) -> Any:
    """A model with fresh weights, by `from_config` of the right Auto class."""
    speaking = speaking_config(config)
    return auto_class(speaking).from_config(speaking, **options)


def from_pretrained(folder: Path, config: Any, **options: Any) -> Any:
    """A model from a folder, by `from_pretrained` of the right Auto class."""
    speaking = speaking_config(config)
    return auto_class(speaking).from_pretrained(folder, config=speaking, **options)
