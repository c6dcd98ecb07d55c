"""Settings of published models that default configs lack, for text parts and whole families."""

from typing import Any

SETTINGS: dict[str, dict[str, Any]] = {
    "afmoe": {"mup_enabled": True},
    # The default's empty rotary settings cannot be built.
    "cohere_compass_text": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        }
    },
    # Its attention reads rotary settings that a default group of settings lacks.
    "dbrx": {"attn_config": {"rope_theta": 500000.0, "kv_n_heads": 8, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 6, "first_k_dense_replace": 1},
    "dots1": {
        "n_routed_experts": 128,
        "n_shared_experts": 2,
        "num_experts_per_tok": 6,
        "first_k_dense_replace": 1,
    },
    # The models of few parameters share keys and values among their last blocks.
    "gemma4_text": {"num_kv_shared_layers": 12, "use_double_wide_mlp": True},
    # Its default is what its own check refuses.
    "gemma4_assistant": {
        "text_config": {
            "model_type": "gemma4_text",
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": 30,
        }
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 64, "moe_topk": 8},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "ministral": {"head_dim": 128},
    "ministral3": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000000.0,
            "factor": 16.0,
            "llama_4_scaling_beta": 0.1,
            "original_max_position_embeddings": 16384,
        }
    },
    "nemotron": {"num_key_value_heads": 8},
    "qwen4_exp_text": {
        "indexer_n_heads": 16,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 256,
        "indexer_budget": 2048,
        "indexer_compress_ratio": 16,
    },
    # It multiplies logits by what Granite divides them by.
    "hyperclovax": {"logits_scaling": 0.125},
    # Two blocks that share their attention.
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"]},
}
"""Model type -> settings."""

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "bloom": {"residual-after-norm": {"apply_residual_connection_post_layernorm": True}},
    "deepseek_v2": {"lite": {"q_lora_rank": None}},
    "doge": {"moe": {"is_moe": True}},
    "falcon": {
        "40b": {"new_decoder_architecture": True, "num_kv_heads": 8},
        "rw": {"alibi": True, "parallel_attn": False, "bias": True, "multi_query": False},
    },
    "gemma4_text": {
        "moe": {
            "num_kv_shared_layers": 0,
            "use_double_wide_mlp": False,
            "enable_moe_block": True,
            "num_experts": 128,
            "top_k_experts": 8,
            "moe_intermediate_size": 704,
            "hidden_size_per_layer_input": 0,
        }
    },
    "gpt_neox": {"sequential": {"use_parallel_residual": False}},
    "opt": {"350m": {"do_layer_norm_before": False, "word_embed_proj_dim": 512}},
    "qwen4_exp_text": {"per-layer-embeddings": {"ple_layer_ids": [1, 3], "eos_token_id": 2}},
    "stablelm": {"parallel": {"use_parallel_residual": True}},
}
"""Model type -> variant -> settings of published models that are built differently."""

EFFECTS: dict[str, float | list[float]] = {
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.125,
    "logits_scaling": 8.0,
    "lm_head_multiplier": 0.4,
    "key_multiplier": 0.4,
    "attention_in_multiplier": 0.8,
    "attention_out_multiplier": 0.9,
    "ssm_in_multiplier": 1.25,
    "ssm_out_multiplier": 0.7,
    "ssm_multipliers": [0.35, 0.25, 0.18, 0.5, 0.35],
    "mlp_multipliers": [0.88, 0.6],
    "routed_scaling_factor": 2.5,
    "moe_routed_scaling_factor": 2.5,
    "route_scale": 2.5,
    "full_attn_alpha_factor": 3.5,
    "linear_attn_alpha_factor": 3.5,
    "mlp_alpha_factor": 3.5,
    "full_attn_beta_factor": 0.9,
    "linear_attn_beta_factor": 0.9,
    "mlp_beta_factor": 0.9,
}
"""Factors that default to 1 -> their value in a sample, for every family.

The values are near those of Granite, Falcon-H1, DeepSeek and MiniMax.
"""

MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [24, 20, 20]}
OMNI = {"vision_start_token_id": 151652, "vision_end_token_id": 151653}
SAMPLES: dict[str, dict[str, Any]] = {
    "gemma4": {"vision_config": {}, "audio_config": {}},
    "gemma4_unified": {"vision_config": {}, "audio_config": {}},
    "blip-2": {"image_token_index": 50265},
    "instructblip": {"image_token_index": 50265},
    "instructblipvideo": {"video_token_index": 50265},
    "cohere_compass": {
        "text_config": {
            "layer_types": (["sliding_attention"] * 3 + ["full_attention"]) * 10,
            "rope_parameters": {"sliding_attention": MROPE, "full_attention": None},
        }
    },
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense"] + ["sparse"] * 31, "num_experts_per_tok": 6}},
    "granite4_vision": {
        "downsample_rate": "4/8",
        "deepstack_layer_map": [[-19, 0], [-13, 1], [-7, 2], [-1, 0]],
        "spatial_target_layers": [0, 1, 2, 1],
    },
    "hunyuan_vl": {"text_config": {"head_dim": 128, "num_key_value_heads": 8}},
    "minicpm_ocr": {"image_token_id": 248056, "video_token_id": 248057},
    "minicpmv4_6": {"image_token_id": 248056, "video_token_id": 248057},
    "minicpmv4_7": {"image_token_id": 248056, "video_token_id": 248057},
    "nemotron_h_omni": {"image_token_id": 18, "video_token_id": 131081},
    "perception_lm": {
        "vision_config": {
            "architecture": "vit_pe_lang_large_patch14_448",
            "model_args": {"embed_dim": 1024, "depth": 23, "img_size": [448, 448], "global_pool": ""},
        },
        "projector_pooling_ratio": 2,
    },
    "qwen2_5_omni": {"thinker_config": OMNI},
    "qwen2_5_omni_thinker": OMNI,
    "qwen3_omni_moe": {"thinker_config": OMNI},
    "qwen3_omni_moe_thinker": OMNI,
    "qwen4_exp": {
        "text_config": {
            "indexer_n_heads": 16,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 256,
            "indexer_budget": 2048,
            "indexer_compress_ratio": 16,
        }
    },
    "step3p7": {
        "text_config": {
            "sliding_window": 512,
            "layer_types": ["full_attention", *["sliding_attention"] * 3] * 11 + ["full_attention"],
        }
    },
    "voxtral": {"audio_token_id": 24},
}
