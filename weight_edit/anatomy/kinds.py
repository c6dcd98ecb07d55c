"""Kinds of models that have no decoder's residual stream: told from a config alone, before anything is built."""

from typing import Any


def refuse_kinds(config: Any) -> str | None:
    """Why a config's model is no decoder language model, in words that follow its name; None where it may be one.

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
