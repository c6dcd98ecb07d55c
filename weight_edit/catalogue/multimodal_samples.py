"""A small config of every multimodal family: its published kind, few blocks, narrow."""

import copy
from typing import Any

from weight_edit.anatomy.classes import speaking_config
from weight_edit.anatomy.narrow import narrow_config
from weight_edit.anatomy.towers import narrow_multimodal
from weight_edit.catalogue.few_layers import few_layers
from weight_edit.catalogue.multimodal_data import SAMPLES
from weight_edit.catalogue.sample_data import EFFECTS, SETTINGS, VARIANTS
from weight_edit.errors import UsageError


def sample_multimodal(model_type: str, variant: str | None = None) -> Any:
    """A narrow config of a multimodal family with a few text blocks of every kind.

    Where a family is several models, it is that of the one that reads and writes text.

    Args:
        model_type: as transformers knows it, such as "llava".
        variant: one of the variants of its text part (`samples.variants`).

    Raises:
        UsageError: transformers has no such model type.
    """
    return narrow_multimodal(published_multimodal(model_type, variant), _narrow_few)


def _narrow_few(text: Any) -> Any:
    return narrow_config(few_layers(text))


def published_multimodal(model_type: str, variant: str | None = None) -> Any:
    """The default config of a multimodal family, of full size, as its published models set it.

    Args:
        model_type, variant: as in `sample_multimodal`.

    Raises:
        UsageError: transformers has no such model type.
    """
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise UsageError(f"transformers has no model type '{model_type}'")
    made = CONFIG_MAPPING[model_type]
    settings = copy.deepcopy(SAMPLES.get(model_type, {}))
    config = speaking_config(made(**settings))
    text = config.get_text_config()
    more = {**SETTINGS.get(text.model_type, {}), **VARIANTS.get(text.model_type, {}).get(variant or "", {})}
    if more and "text_config" in vars(config):
        given = {"model_type": text.model_type, **copy.deepcopy(more), **settings.get("text_config", {})}
        config = made(**{**settings, "text_config": given})
        text = config.get_text_config()
    for key, value in EFFECTS.items():
        if key not in more and vars(text).get(key) == ([1.0] * len(value) if isinstance(value, list) else 1):
            setattr(text, key, copy.copy(value))
    return config
