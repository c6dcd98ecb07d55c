"""Which class of transformers a config means."""

from typing import Any

from weight_edit.errors import UnsupportedError


def auto_class(config: Any) -> Any:
    """The Auto class (AutoModelForCausalLM, AutoModelForMultimodalLM, ...) whose mapping holds the class a config means.

    The class named first in `config.architectures` decides where a mapping holds it for this config; else a text config
    is a causal language model and a composite one a multimodal model. Models with code of their own (`auto_map`) go
    through the Auto class that the map names.
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
            if any(held_class.__name__ == name for held_class in held[auto]):
                return auto
    composite = type(config).sub_configs if hasattr(type(config), "sub_configs") else {}
    order = (autos[1], autos[0], autos[2]) if composite else autos
    return next((auto for auto in order if held[auto]), AutoModelForCausalLM)


def _classes(auto: Any, config: Any) -> tuple[Any, ...]:
    mapping = auto._model_mapping
    if type(config) not in mapping:
        return ()
    found = mapping[type(config)]
    return tuple(found) if isinstance(found, list | tuple) else (found,)


def model_class(config: Any) -> Any:
    """The class of transformers that a config means.

    Raises:
        UnsupportedError: transformers has no language model for it.
    """
    auto = auto_class(config)
    found = _classes(auto, config)
    if not found:
        raise UnsupportedError(
            f"model type '{getattr(config, 'model_type', '?')}' is no language model of transformers"
        )
    names = getattr(config, "architectures", None) or []
    return next((held for held in found if held.__name__ in names), found[0])
