"""Kinds of multimodal models that have no one decoder's residual stream, or none that reads text."""

import inspect
from typing import Any

from weight_edit.anatomy.classes import model_class, speaking_config
from weight_edit.anatomy.towers import parts
from weight_edit.errors import UnsupportedError


def refuse_multimodal(config: Any) -> str | None:
    """Why a composite config's model holds no decoder that can be edited, in words that follow its name; else None.

    Decides by what the config and the class's forward say, not by name.
    """
    config = speaking_config(config)
    try:
        text = config.get_text_config()
    except ValueError:
        return "holds several language models"
    if getattr(config, "is_encoder_decoder", False):
        return "is an encoder-decoder"
    if text is not config and getattr(text, "is_encoder_decoder", False):
        return "holds an encoder-decoder as its language model"
    if text is not config and "encoder_hidden_size" in vars(text):
        return "is the decoder of an encoder-decoder (its blocks attend to an encoder's output)"
    try:
        held = model_class(config)
    except UnsupportedError:
        return "is no language model of transformers' mappings"
    takes = inspect.signature(held.forward).parameters
    if "input_ids" not in takes:
        names = ", ".join(key for key, _ in parts(config))
        return f"is several models ({names}) without a forward in common"
    if not held.can_generate():
        return "gives no logits of a next token"
    if "decoder_input_ids" in takes and not getattr(config, "use_decoder_only_language_model", False):
        return "reads its context and writes its answer in different streams (decoder_input_ids)"
    return None
