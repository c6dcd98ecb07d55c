"""A small config of every multimodal family: its published kind, few blocks, narrow."""

from typing import Any

from weight_edit.anatomy.small import narrow_config
from weight_edit.anatomy.towers import narrow_multimodal
from weight_edit.catalogue.few_layers import few_layers
from weight_edit.catalogue.multimodal_data import SAMPLES


def sample_multimodal(model_type: str) -> Any:
    """A narrow config of a multimodal family with a few blocks of every kind.

    Raises:
        KeyError: transformers has no such model type.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[model_type](**SAMPLES.get(model_type, {}))
    return narrow_multimodal(config, lambda text: narrow_config(few_layers(text)))
