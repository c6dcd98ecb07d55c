"""Configs nested in a config: those of towers and of a text part."""

from collections.abc import Iterator
from typing import Any

OWN_SETTINGS = ("attn_config", "ffn_config")
"""Nested configs that hold settings of the model at hand, and no model."""


def is_multimodal(config: Any) -> bool:
    """Whether a config nests other models' configs, beyond groups of settings (DBRX)."""
    return any(part.model_type for _, part in parts(config))


def parts(config: Any) -> Iterator[tuple[str, Any]]:
    """(key, config) of each nested config."""
    from transformers import PretrainedConfig

    for key, value in vars(config).items():
        if isinstance(value, PretrainedConfig) and key not in OWN_SETTINGS:
            yield key, value
