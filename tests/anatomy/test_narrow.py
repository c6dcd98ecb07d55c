"""Narrow copies of real configs: all blocks, small widths that fit together, and the user's config as it was."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig

from weight_edit.anatomy.narrow.small import build, narrow_config, randomise

LONG = {"type": "longrope", "long_factor": [1.0] * 48, "short_factor": [1.0] * 48}
YARN = {"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 4096}

REAL: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
    },
    "phi3": {"num_hidden_layers": 32, "rope_scaling": LONG, "max_position_embeddings": 131072},
    "phi": {"partial_rotary_factor": 0.4},
    "deepseek_v3": {"num_hidden_layers": 61, "rope_scaling": YARN, "quantization_config": {"quant_method": "fp8"}},
    "gemma3n_text": {"num_hidden_layers": 30, "intermediate_size": 8192, "num_kv_shared_layers": 10},
    "jamba": {"num_hidden_layers": 72, "hidden_size": 8192, "mamba_dt_rank": 512},
    "bamba": {"num_hidden_layers": 32, "attn_layer_indices": [9, 18, 27]},
    "granitemoehybrid": {"num_hidden_layers": 4, "layer_types": ["mamba", "attention"] * 2, "num_local_experts": 62},
    "falcon": {
        "hidden_size": 8192,
        "num_hidden_layers": 60,
        "num_attention_heads": 128,
        "num_kv_heads": 8,
        "new_decoder_architecture": True,
    },
    "opt": {"hidden_size": 1024, "word_embed_proj_dim": 512, "do_layer_norm_before": False},
    "gpt2": {"n_layer": 48, "n_embd": 1600, "n_head": 25},
    "hunyuan_v1_moe": {"num_experts": 64, "moe_topk": [8] * 32, "moe_intermediate_size": [3072] * 32, "head_dim": 128},
}


@pytest.mark.parametrize("kind", REAL)
def test_all_blocks_stay_and_widths_fit(kind: str) -> None:
    real = AutoConfig.for_model(kind, **REAL[kind])
    before = real.to_json_string()
    narrow = narrow_config(real)
    assert real.to_json_string() == before
    assert narrow.hidden_size == 64
    assert narrow.num_hidden_layers == real.num_hidden_layers
    assert getattr(narrow, "layer_types", None) == getattr(real, "layer_types", None)
    assert not hasattr(narrow, "quantization_config")
    model: Any = build(narrow)
    randomise(model, 0)
    ids = torch.randint(3, 90, (2, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits
    assert bool(torch.isfinite(logits).all())


def test_embeddings_stay_as_wide_as_the_stream_or_not() -> None:
    same = narrow_config(AutoConfig.for_model("opt"))
    assert same.word_embed_proj_dim == same.hidden_size
    other = narrow_config(AutoConfig.for_model("opt", word_embed_proj_dim=512))
    assert other.word_embed_proj_dim != other.hidden_size


@pytest.mark.parametrize(("heads", "shared", "narrow"), [(64, 64, 4), (64, 8, 2), (64, 1, 1)])
def test_key_value_heads_keep_their_kind(heads: int, shared: int, narrow: int) -> None:
    config = AutoConfig.for_model("llama", num_attention_heads=heads, num_key_value_heads=shared)
    assert narrow_config(config).num_key_value_heads == narrow


def test_heads_of_single_layers_fit_their_key_value_heads() -> None:
    narrow = narrow_config(AutoConfig.for_model("dots3_note_text"))
    pairs = {(layer.num_attention_heads, layer.num_key_value_heads) for layer in narrow.per_layer_config}
    assert pairs == {(4, 4), (8, 8)}


def test_special_tokens_lie_in_the_vocabulary() -> None:
    narrow = narrow_config(AutoConfig.for_model("llama", **REAL["llama"]))
    assert (narrow.bos_token_id, narrow.eos_token_id) == (1, [2])
    real = AutoConfig.for_model("llama", image_token_id=99999, video_token_id=88888, mask_token_index=5)
    narrow = narrow_config(real)
    assert (narrow.video_token_id, narrow.image_token_id, narrow.mask_token_index) == (96, 95, 5)


def test_plain_groups_of_settings_are_narrowed() -> None:
    real = AutoConfig.for_model("llama", linear_attn_config={"num_heads": 32, "head_dim": 128, "layers": [1, 2]})
    assert narrow_config(real).linear_attn_config == {"num_heads": 4, "head_dim": 24, "layers": [1, 2]}
    assert real.linear_attn_config["num_heads"] == 32


def test_rotary_pairs_stay_whole() -> None:
    narrow = narrow_config(AutoConfig.for_model("glm", head_dim=128, partial_rotary_factor=0.125))
    assert int(narrow.head_dim * narrow.rope_parameters["partial_rotary_factor"]) % 2 == 0
