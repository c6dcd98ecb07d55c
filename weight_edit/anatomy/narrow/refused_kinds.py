"""Refusals, by config alone, of models that are no editable decoders."""

import inspect
from typing import Any

from weight_edit.anatomy.narrow.classes import model_class, speaking_config
from weight_edit.anatomy.narrow.sub_configs import parts
from weight_edit.errors import UnsupportedError


def refuse_kinds(config: Any) -> str | None:
    """The reason, to follow the model's name, why a config is no decoder LM; else None.

    Decides by what a config says and by transformers' own lists, not by name: an encoder-decoder says so itself; a
    decoder that belongs to one has settings of cross-attention; an encoder is known by its masked language model or by
    settings that could make it a decoder and do not.
    """
    stored = vars(config)
    if getattr(config, "is_encoder_decoder", False):
        return "is an encoder-decoder"
    if "backbone_hidden_size" in stored and "text_config" in stored:
        return "drafts tokens for another model (it reads that model's hidden states)"
    if {"encoder_config", "decoder_config"} <= set(stored):
        return "is an encoder and a decoder in one (a nested config for each)"
    if "cross_attention_hidden_size" in stored or getattr(config, "add_cross_attention", False):
        return "is the decoder of an encoder-decoder (it attends to an encoder's output)"
    if getattr(config, "is_decoder", False):
        return None
    if {"is_decoder", "add_cross_attention"} <= set(stored) or _is_masked(config.model_type):
        return "is an encoder (its attention looks both ways)"
    if stored.get("attn_type") == "bi":
        return "reads in permuted order (its attention looks both ways)"
    return None


def _is_masked(model_type: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def refuse_multimodal(config: Any) -> str | None:
    """The reason why a composite config has no editable decoder; else None.

    It is worded to follow the model's name.

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
