"""A small config of a family by its model type."""

import copy
from typing import Any

from weight_edit.anatomy.narrow import narrow_config
from weight_edit.catalogue.few_layers import few_layers
from weight_edit.catalogue.sample_data import EFFECTS, SETTINGS, VARIANTS
from weight_edit.errors import UsageError


def sample_config(model_type: str, variant: str | None = None) -> Any:
    """The published form of a model type with few layers and narrow widths.

    Args:
        model_type: as transformers knows it, such as "llama" or "gemma3_text".
        variant: one of `variants`: published models of the family that are built differently.

    Raises:
        UsageError: transformers has no such model type, or it has no such variant.
    """
    return narrow_config(few_layers(published_config(model_type, variant)))


def published_config(model_type: str, variant: str | None = None) -> Any:
    """The default config of a model type, of full size, as its published models set it (`sample_data`).

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


def variants(model_type: str) -> tuple[str, ...]:
    """Names of the variants that a family has beside its usual form."""
    return tuple(VARIANTS.get(model_type, {}))
