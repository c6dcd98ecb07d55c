"""A small config of a family by its model type."""

from typing import Any

from weight_edit.anatomy.narrow import narrow_config
from weight_edit.catalogue.few_layers import few_layers
from weight_edit.catalogue.sample_data import SETTINGS
from weight_edit.errors import UsageError


def sample_config(model_type: str) -> Any:
    """The default config of a model type with few layers and narrow widths.

    Settings that published models of the family use, but its default config leaves at no effect, are set first
    (`sample_data`).

    Raises:
        UsageError: transformers has no such model type.
    """
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        raise UsageError(f"transformers has no model type '{model_type}'")
    return narrow_config(few_layers(CONFIG_MAPPING[model_type](**SETTINGS.get(model_type, {}))))
