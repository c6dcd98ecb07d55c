"""The configs that a config holds: those of towers and of a text part."""

from collections.abc import Iterator
from typing import Any

OWN_SETTINGS = ("attn_config", "ffn_config")
"""Configs that hold no model of their own, but settings of the one at hand."""


def is_multimodal(config: Any) -> bool:
    """Whether a config holds other models' configs: towers beside a text part, not mere groups of settings (DBRX)."""
    return any(part.model_type for _, part in parts(config))


def parts(config: Any) -> Iterator[tuple[str, Any]]:
    """The configs that a config holds, by key."""
    from transformers import PretrainedConfig

    for key, value in vars(config).items():
        if isinstance(value, PretrainedConfig) and key not in OWN_SETTINGS:
            yield key, value
