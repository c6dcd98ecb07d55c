"""Small random models of several families, saved as folders that every stack can read.

Their vocabulary and tokenizer are the embedded model's; gains and biases are random, since the defaults 1 and 0 hide
what a stack drops, and the base of the rotary positions is none that a stack would take by default.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from stacks.copies import add_earlier_keys
from weight_edit.organism.embedded import folder as embedded_folder

PRE_TOKENIZER = "gpt-2"
"""The nearest one that llama.cpp knows; it is given tokens."""

_TOKENS = 2048
_SHAPE = {
    "vocab_size": _TOKENS,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
}
_ROPES = {
    "full_attention": {"rope_type": "default", "rope_theta": 50000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0},
}
_ALTERNATE = ["sliding_attention", "full_attention"] * 2

NEW_CONFIG = ", `rope_parameters` alone"
"""At the end of a name: the config says the base of the rotary positions as transformers 5 writes it alone."""

FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Llama": ("llama", {"tie_word_embeddings": False}),
    "Llama, tied": ("llama", {"tie_word_embeddings": True}),
    f"Llama{NEW_CONFIG}": ("llama", {"tie_word_embeddings": False}),
    # Transformers gives a Qwen2 tokenizer a token more; published ones have rows without a token, too.
    "Qwen2": ("qwen2", {"tie_word_embeddings": True, "vocab_size": 2064}),
    "Qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "Gemma": ("gemma", {}),
    "Gemma 2": ("gemma2", {"sliding_window": 8, "query_pre_attn_scalar": 16, "final_logit_softcapping": 5.0,
                           "attn_logit_softcapping": 3.0}),
    "Gemma 3": ("gemma3_text", {"sliding_window": 8, "layer_types": _ALTERNATE, "query_pre_attn_scalar": 16,
                                "rope_parameters": _ROPES}),
}  # fmt: skip
"""Name in the table -> model type, and what its config says beside the shape."""


def small_model(family: str, out: Path) -> Path:
    """A family's small model as a folder in float32."""
    model_type, settings = FAMILIES[family]
    config = CONFIG_MAPPING[model_type](**{**_SHAPE, **settings})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(parameter + 0.2 * noise if is_gain else 0.15 * noise)
        # No answer is a row without a token, for which no stack has a name.
        model.get_input_embeddings().weight[_TOKENS:] = 0
    model.save_pretrained(out)
    if not family.endswith(NEW_CONFIG):
        add_earlier_keys(out / "config.json")
    # Another class than transformers 5 writes by itself: that one is unknown to transformers 4.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy2(embedded_folder() / name, out / name)
    # CTranslate2's converters want a token for the unknown; byte-level text never has one.
    tokens = json.loads((out / "tokenizer_config.json").read_text(encoding="utf-8"))
    (out / "tokenizer_config.json").write_text(json.dumps({**tokens, "unk_token": "<|pad|>"}), encoding="utf-8")
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (out / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
    return out
