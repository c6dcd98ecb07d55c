"""What the default config of a multimodal family lacks of what its published models have."""

from typing import Any

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
