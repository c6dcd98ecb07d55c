"""A small config of any model type of transformers, whatever it is made of."""

from typing import Any

from weight_edit.anatomy.derive import check_kind
from weight_edit.anatomy.towers import is_multimodal
from weight_edit.catalogue.multimodal_samples import published_multimodal, sample_multimodal
from weight_edit.catalogue.samples import published_config, sample_config
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, first_line


def sample(model_type: str, variant: str | None = None) -> Any:
    """The published form of a model type with few blocks and narrow widths.

    Args:
        model_type: as transformers knows it.
        variant: of the text part; see `samples.variants`.

    Raises:
        UnsupportedError: it is no decoder language model, or has no default config.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    try:
        plain = CONFIG_MAPPING[model_type]()
    except (*FOREIGN_ERRORS, StrictDataclassError) as error:
        raise UnsupportedError(f"model type '{model_type}' has no valid default config ({first_line(error)})") from error
    check_kind(plain)
    whole = is_multimodal(plain)
    check_kind(published_multimodal(model_type, variant) if whole else published_config(model_type, variant))
    return sample_multimodal(model_type, variant) if whole else sample_config(model_type, variant)
