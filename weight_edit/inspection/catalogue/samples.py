"""Configs of a family by its model type: in published form, and as small samples."""

import copy
from typing import Any

from weight_edit.anatomy.derive import check_kind
from weight_edit.anatomy.narrow.classes import speaking_config
from weight_edit.anatomy.narrow.narrow import narrow_config
from weight_edit.anatomy.narrow.sub_configs import is_multimodal
from weight_edit.anatomy.narrow.towers import narrow_multimodal
from weight_edit.errors import UsageError
from weight_edit.inspection.catalogue.few_layers import few_layers
from weight_edit.inspection.catalogue.sample_data import EFFECTS, SAMPLES, SETTINGS, VARIANTS


def sample(model_type: str, variant: str | None = None) -> Any:
    """A sample of a model type: few blocks and narrow widths, settings as published.

    Args:
        model_type: as transformers knows it.
        variant: of the text part; see `samples.variants`.

    Raises:
        UnsupportedError: it is no decoder language model.
    """
    plain = published_config(model_type, variant)
    check_kind(plain)
    if not is_multimodal(plain):
        return sample_config(model_type, variant)
    check_kind(published_multimodal(model_type, variant))
    return sample_multimodal(model_type, variant)


def sample_config(model_type: str, variant: str | None = None) -> Any:
    """A sample of a text model type: few layers and narrow widths, settings as published.

    Args:
        model_type: as transformers knows it, such as "llama" or "gemma3_text".
        variant: one of `variants`: published models of the family that are built differently.

    Raises:
        UsageError: transformers has no such model type, or it has no such variant.
    """
    return narrow_config(few_layers(published_config(model_type, variant)))


def sample_multimodal(model_type: str, variant: str | None = None) -> Any:
    """A sample of a multimodal family: narrow, with a few text blocks of every kind.

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


def published_config(model_type: str, variant: str | None = None) -> Any:
    """The full-size default config of a model type, with published settings (`sample_data`).

    Args:
        model_type: as transformers knows it.
        variant: one of `variants`.

    Raises:
        UsageError: transformers has no such model type, or it has no such variant.
    """
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise UsageError(f"transformers has no model type '{model_type}'")
    if variant is not None and variant not in variants(model_type):
        known = ", ".join(variants(model_type)) or "none"
        raise UsageError(f"model type '{model_type}' has no sample variant '{variant}'; it has: {known}")
    settings = {**SETTINGS.get(model_type, {}), **VARIANTS.get(model_type, {}).get(variant or "", {})}
    config = CONFIG_MAPPING[model_type](**copy.deepcopy(settings))
    for key, value in EFFECTS.items():
        none = [1.0] * len(value) if isinstance(value, list) else 1
        if key not in settings and vars(config).get(key) == none:
            setattr(config, key, copy.copy(value))
    return config


def published_multimodal(model_type: str, variant: str | None = None) -> Any:
    """The full-size default config of a multimodal family, with published settings.

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


def variants(model_type: str) -> tuple[str, ...]:
    """The names of a family's variants beside its usual form."""
    return tuple(VARIANTS.get(model_type, {}))
