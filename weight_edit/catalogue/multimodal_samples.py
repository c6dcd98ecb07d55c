"""A small config of every multimodal family: its published kind, few blocks, narrow."""

from typing import Any

from weight_edit.anatomy.classes import speaking_config
from weight_edit.anatomy.narrow import narrow_config
from weight_edit.anatomy.towers import narrow_multimodal
from weight_edit.catalogue.few_layers import few_layers
from weight_edit.catalogue.multimodal_data import SAMPLES
from weight_edit.errors import UsageError


def sample_multimodal(model_type: str) -> Any:
    """A narrow config of a multimodal family with a few text blocks of every kind.

    Where a family is several models, it is that of the one that reads and writes text.

    Raises:
        UsageError: transformers has no such model type.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise UsageError(f"transformers has no model type '{model_type}'")
    config = speaking_config(CONFIG_MAPPING[model_type](**SAMPLES.get(model_type, {})))
    return narrow_multimodal(config, lambda text: narrow_config(few_layers(text)))
