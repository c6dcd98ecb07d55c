"""Small sizes of vision and audio towers and projectors: rules by key, and exceptions.

A value that is `TEXT` stands for the width of the narrow text part, which a projector has to give.
"""

from typing import Any

from weight_edit.anatomy.narrow.narrow_data import VOCABULARY

TEXT = "width of the text part"
WIDTH = 32
HEADS = 2
HEAD = WIDTH // HEADS
INNER = 40
PATCH = 4
GRID = 4
"""Patches along each side of an image: a multiple of every known patch merging."""
IMAGE = PATCH * GRID
LAYERS = 2

SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "embed_dim": WIDTH,
    "d_model": WIDTH,
    "hidden_dim": WIDTH,
    "encoder_hidden_size": WIDTH,
    "vision_hidden_size": WIDTH,
    "patch_embed_hidden_size": WIDTH,
    "intermediate_size": INNER,
    "moe_intermediate_size": INNER,
    "mlp_dim": INNER,
    "encoder_ffn_dim": INNER,
    "projection_hidden_dim": INNER,
    "projection_intermediate_size": INNER,
    "projector_intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "attention_heads": HEADS,
    "num_heads": HEADS,
    "num_key_value_heads": HEADS,
    "encoder_attention_heads": HEADS,
    "head_dim": HEAD,
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
    "n_layers": LAYERS,
    "num_blocks": LAYERS,
    "encoder_layers": LAYERS,
    "depth": LAYERS,
    "num_global_layers": 1,
    "num_local_experts": 4,
    "image_size": IMAGE,
    "force_image_size": IMAGE,
    "crop_size": IMAGE,
    "max_img_size": IMAGE,
    "max_image_size": IMAGE,
    "min_image_size": IMAGE,
    "patch_size": PATCH,
    "num_patches": GRID * GRID,
    "num_position_embeddings": GRID * GRID,
    "pos_emb_height": GRID,
    "pos_emb_width": GRID,
    "posemb_grid_size": GRID,
    "output_channels": 12,
    "resampler_depth": LAYERS,
    "resampler_n_heads": HEADS,
    "resampler_head_dim": HEAD,
    "resampler_n_latents": 3,
    "num_query_tokens": 3,
    "latent_query_num": 3,
    "max_source_positions": 16,
    "max_num_patches": 64,
    "position_embedding_size": GRID * GRID,
    "pooling_kernel_size": 2,
    # Image tokenizers: groups of 32 channels are normed together.
    "base_channels": 32,
    "latent_channels": 4,
    "num_embeddings": 8,
    "codebook_size": 8,
    "codebook_dim": 8,
    "num_filters": 4,
    "resolution": IMAGE,
    # Patches that a linear map embeds at once, without a tower.
    "mm_embed_dim": WIDTH,
    "mm_posemb_size": GRID * GRID,
    "output_proj_dims": WIDTH,
    # Sounds.
    "audio_embed_dim": WIDTH,
    "downsample_hidden_size": 8,
    "conf_num_hidden_layers": LAYERS,
    "conf_num_attention_heads": HEADS,
}
"""Tower key -> its narrow value."""

TEXT_WIDE = frozenset(
    {
        "out_hidden_size",
        "text_hidden_size",
        "projector_output_dim",
        "adapter_out_dim",
        "projection_dim",
        "output_dim",
    }
)
"""Tower keys that hold the width of the text model's stream."""

PROJECTOR: dict[str, Any] = {
    "projector_hidden_size": INNER,
    "projection_hidden_size": WIDTH,
    "vision_hidden_size": WIDTH,
    "alignment_intermediate_size": INNER * 2,
    "merged_hidden_size": INNER,
    "projection_dim": TEXT,
    "out_hidden_size": TEXT,
    "image_size": IMAGE,
    "patch_size": PATCH,
    "num_query_tokens": 3,
    "latent_query_num": 3,
    "scale_factor": 2,
}
"""Top-level key -> its narrow value, in configs with text and towers as parts."""

LAYER_INDEXES = frozenset(
    {
        "deepstack_visual_indexes",
        "fullatt_block_indexes",
        "global_attn_indexes",
        "vision_feature_layer",
        "feature_layer",
        "spatial_vision_layer",
        "intermediate_layers_indices",
        "insert_layer_id",
    }
)
"""Keys that hold block numbers of a tower."""

TOWERS: dict[str, dict[str, Any]] = {
    # Its `hidden_size` is what it gives, its `embed_dim` is its own width.
    "qwen2_vl_vision": {"hidden_size": TEXT},
    # Windows of 2 by 2 merged patches.
    "qwen2_5_vl_vision": {"window_size": 4 * PATCH},
    "qwen2_5_omni_vision_encoder": {"window_size": 4 * PATCH},
    "exaone4_5_vision": {"window_size": 4 * PATCH},
    "got_ocr2_vision": {"window_size": 2},
    "pp_chart2table_vision": {"window_size": 2},
    "sam_vision_model": {"window_size": 2},
    "deepseek_ocr2_sam_vision_model": {"window_size": 2, "downsample_channels": [24, WIDTH]},
    "unlimited_ocr_sam_vision_model": {"window_size": 2, "downsample_channels": [24, WIDTH]},
    "idefics2_perceiver": {"hidden_size": TEXT, "num_key_value_heads": 1},
    # Four patches are shuffled into one, so its multilayer perceptron takes four widths.
    "llama4_vision_model": {
        "intermediate_size": 4 * WIDTH,
        "projector_input_dim": 48,
        "projector_output_dim": 48,
        "vision_output_dim": 48,
    },
    # Gives the last hidden state and each of the named ones.
    "mllama_vision_model": {"intermediate_layers_indices": [0, 1], "vision_output_dim": 3 * WIDTH},
    "ovis2_vision": {"vocab_size": 24},
    "chameleon_vqgan": {"channel_multiplier": [1, 1, 1], "embed_dim": 4},
    "apertus1p5_vision_tokenizer": {"channel_multiplier": [1, 1, 1], "embed_dim": 4, "spatial_scale_factor": 4},
    "wavtokenizer_encoder": {"codebook_dim": WIDTH},
    "emu3_vqgan": {"channel_multiplier": [1, 1, 1], "embed_dim": 4, "num_attention_heads": 1},
    "janus_vqgan": {
        "channel_multiplier": [1, 1, 1],
        "embed_dim": 4,
        "image_token_embed_dim": TEXT,
        "projection_dim": TEXT,
        "num_patches": GRID,
    },
    "phi4_multimodal_audio": {
        "ext_pw_out_channel": WIDTH,
        "depthwise_separable_out_channel": WIDTH,
        "nemo_conv_channels": WIDTH,
    },
    "dots3_note_vision_encoder": {"adapter_in_dim": WIDTH},
    "dots3_note_audio_encoder": {"adapter_input_size": WIDTH, "conv_output_size": 8 * 16},
    "radio": {"patch_dim": 3 * PATCH**2, "video_patch_dim": 3 * PATCH**2 * 2},
    # The projector reads four rows at once, as wide as this.
    "voxtral_encoder": {"intermediate_size": 4 * WIDTH},
    "glmasr_encoder": {"intermediate_size": 4 * WIDTH},
    # Its inner width is computed from its width.
    "step3p5_vision": {"mlp_ratio": 1.25, "intermediate_size": INNER},
    # The patches of each of its stages divide those of the one before.
    "muse_spark_audio": {
        "num_hidden_layers": 2,
        "depths": [1, 1],
        "hidden_sizes": [16, WIDTH],
        "patch_sizes": [16, 6],
        "out_hidden_size": TEXT,
    },
    # A tower of timm is as wide as its name says. The tokens are those that `renumber` gives to an image and a sound.
    "gemma3n_vision": {"architecture": "test_efficientnet", "hidden_size": 256, "vocab_offset": 93, "vocab_size": 2},
    "gemma3n_audio": {"vocab_offset": 95, "vocab_size": 2},
    "mimi": {"upsample_groups": WIDTH},
    "vibevoice_acoustic_tokenizer_encoder": {"depths": [1, 1], "downsampling_ratios": [2]},
}
"""Tower's model type -> its exceptions."""

IMAGES_IN_WORDS = {"<image>": 60} | {f"IMGIMG{letter}Z": 61 + index for index, letter in enumerate("ABCDEFGH")}
VISUAL_TOKENS = {"<image>": 60, "<|extra_200|>": 69} | {
    f"<|visual token {index:06d}|>": 61 + index for index in range(8)
}

MODELS: dict[str, dict[str, Any]] = {
    "aria": {"projector_patch_to_query_dict": {GRID * GRID: 4}, "max_value_projector_patch_to_query_dict": 4},
    "gemma3": {"mm_tokens_per_image": 4},
    "shieldgemma2": {"mm_tokens_per_image": 4},
    "gemma3n": {"vision_soft_tokens_per_image": 4, "text_config.vocab_size_per_layer_input": 93},
    "fast_vlm": {"vision_config.architecture": "fastvit_t8", "vision_config.hidden_size": 768},
    "perception_lm": {
        "vision_config.model_args": {
            "embed_dim": WIDTH,
            "depth": LAYERS,
            "num_heads": HEADS,
            "img_size": [2 * IMAGE, 2 * IMAGE],
            "patch_size": 2 * PATCH,
            "global_pool": "",
            "use_post_transformer_norm": False,
            "init_values": 0.1,
            "ref_feat_shape": [GRID, GRID],
        }
    },
    # What an unembedding of its own would be as long as.
    "ovis2": {"hidden_size": TEXT, "vocab_size": VOCABULARY},
    # Four merged patches of the tower's width go into the projector.
    "muse_glimmer": {"out_hidden_size": 4 * WIDTH},
    "muse_spark": {"out_hidden_size": 4 * WIDTH},
    # Four rows of the text's width are merged into one.
    "minimax_m3_vl": {"merged_hidden_size": 256},
    "voxtral": {"hidden_size": TEXT},
    "voxtral_realtime": {"hidden_size": TEXT},
    "musicflamingo": {"head_dim": WIDTH},
    # Its inner width is a quarter of the text's.
    "fun_asr_nano": {"adaptor_config.hidden_size": TEXT, "adaptor_config.intermediate_size": 16},
    "nemo_speechlm": {"audio_config.diarization_config.head_config.audio_hidden_size": WIDTH},
    # Image tokens are tokens of the vocabulary, by name.
    "chameleon": {"vocabulary_map": IMAGES_IN_WORDS, "image_token_id": 60},
    "emu3": {"vocabulary_map": VISUAL_TOKENS, "image_token_id": 60},
    # Image codes, then sound codes, follow one another in the vocabulary: eight each, in front of the special tokens.
    "apertus1p5": {"image_token_offset": 60, "audio_token_offset": 68},
    # Its heads are as many as 64 goes into the tower's width.
    "granite4_vision": {
        "downsample_rate": "2/4",
        "vision_config.hidden_size": 64,
        "qformer_config.hidden_size": 64,
        "qformer_config.encoder_hidden_size": 64,
        "qformer_config.num_attention_heads": 1,
    },
}
"""Whole model type -> its exceptions; a dotted key belongs to a part."""

MROPE = {
    "qwen2_vl_text": (16, 24, 24),
    "qwen2_5_vl_text": (16, 24, 24),
    "qwen2_5_omni_text": (16, 24, 24),
    "qwen3_vl_text": (24, 20, 20),
    "qwen3_vl_moe_text": (24, 20, 20),
    "qwen3_omni_moe_text": (24, 20, 20),
    "qwen3_5_text": (11, 11, 10),
    "qwen3_5_moe_text": (11, 11, 10),
    "qwen4_exp_text": (11, 11, 10),
    "glm4v_text": (8, 12, 12),
    "glm4v_moe_text": (8, 12, 12),
    "glm_ocr_text": (8, 12, 12),
    "paddleocr_vl_text": (16, 24, 24),
    "ernie4_5_vl_moe_text": (22, 22, 20),
    "cosmos3_edge_text": (24, 20, 20),
    "cohere_compass_text": (24, 20, 20),
    "hunyuan_vl_text": (16, 16, 16, 16),
}
"""Text models with several kinds of rotary positions (time, row, column), and their shares."""
