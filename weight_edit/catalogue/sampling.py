"""A small config of any model type of transformers, whatever it is made of."""

from typing import Any

from weight_edit.anatomy.derive import check_kind
from weight_edit.anatomy.towers import is_multimodal
from weight_edit.catalogue.multimodal_samples import published_multimodal, sample_multimodal
from weight_edit.catalogue.samples import published_config, sample_config


def sample(model_type: str, variant: str | None = None) -> Any:
    """The published form of a model type with few blocks and narrow widths.

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
