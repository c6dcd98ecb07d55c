"""Narrow sizes as data: each config key's meaning, and exceptions of some families.

Widths differ from one another, and from heads * head size, so that no two axes can be confused by length.
"""

from typing import Any

WIDTH = 64
VOCABULARY = 97
HEADS = 4
POSITIONS = 120

SIZES: dict[str, int] = {
    # The stream.
    "hidden_size": WIDTH,
    "d_model": WIDTH,
    "n_embd": WIDTH,
    "emb_dim": WIDTH,
    # Embedding tables.
    "vocab_size": VOCABULARY,
    "unpadded_vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "embedding_size": 48,
    "embedding_dim": 48,
    "word_embed_proj_dim": 48,
    "ple_embed_dim": 16,
    "hidden_size_per_layer_input": 12,
    # Dense feed-forward parts.
    "intermediate_size": 88,
    "dense_intermediate_size": 104,
    "prefix_dense_intermediate_size": 104,
    "intermediate_size_mlp": 104,
    "ffn_dim": 88,
    "ffn_hidden_size": 88,
    "n_inner": 88,
    "dff": 88,
    "dim_ff": 88,
    "d_inner": 88,
    "feed_forward_size": 88,
    "decoder_ffn_dim": 88,
    "block_multiple_of": 8,
    # Attention.
    "num_attention_heads": HEADS,
    "num_attention_heads_per_layer": HEADS,
    "n_head": HEADS,
    "n_heads": HEADS,
    "num_heads": HEADS,
    "attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "swa_num_attention_heads": HEADS,
    "head_dim": 24,
    "attention_head_dim": 24,
    "swa_head_dim": 20,
    "kv_channels": 24,
    "dim_head": 24,
    "d_head": 24,
    "d_rel": 8,
    "rotary_dim": 8,
    # Latent attention.
    "q_lora_rank": 28,
    "kv_lora_rank": 20,
    "o_lora_rank": 12,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "qk_head_dim": 24,
    "v_head_dim": 12,
    "index_n_heads": 2,
    "index_head_dim": 16,
    "indexer_n_heads": 2,
    "indexer_head_dim": 24,
    "gated_norm_rank": 6,
    # State space, linear attention, convolution: 2 * d_model channels.
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "n_mamba_heads": 2,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "mamba_headdim": 16,
    "mamba_d_ssm": 128,
    "lru_width": 72,
    "attention_hidden_size": 72,
    "mamba_d_state": 10,
    "state_size": 10,
    "ssm_state_size": 10,
    "time_step_rank": 6,
    "mamba_dt_rank": 6,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_num_heads": 4,
    "linear_key_head_dim": 12,
    "linear_value_head_dim": 20,
    "linear_head_dim": 20,
    # Experts.
    "moe_intermediate_size": 24,
    "expert_ffn_hidden_size": 24,
    "shared_expert_intermediate_size": 40,
    "shared_experts_intermediate_size": 40,
    "moe_shared_expert_intermediate_size": 40,
    "shared_intermediate_size": 40,
    "moe_latent_size": 32,
    "router_hidden_size": 36,
    # Other low ranks.
    "adapter_rank": 6,
    "laurel_rank": 6,
    "hc_lowrank": 6,
}
"""Narrow values of keys that hold a positive number."""

CEILINGS: dict[str, int] = {
    # Experts: few, so that two sequences of 32 tokens reach each of them.
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_top_k": 2,
    "moe_k": 2,
    "top_k_experts": 2,
    "zero_expert_num": 2,
    "n_shared_experts": 2,
    "num_shared_experts": 2,
    "moe_num_shared_experts": 2,
    "n_group": 1,
    "num_expert_group": 1,
    "topk_group": 1,
    # Groups of heads.
    "n_groups": 2,
    "mamba_n_groups": 2,
    "mamba_ngroups": 2,
    "o_groups": 2,
    # Lengths: windows and chunks shorter than a test's sequences.
    "max_position_embeddings": POSITIONS,
    "original_max_position_embeddings": POSITIONS,
    "n_positions": POSITIONS,
    "n_ctx": POSITIONS,
    "max_seq_len": POSITIONS,
    "context_length": POSITIONS,
    "model_max_length": POSITIONS,
    "sliding_window": 8,
    "sliding_window_size": 8,
    "attention_window_size": 8,
    "keep_window_size": 8,
    "local_attention": 8,
    "window_size": 8,
    "attention_chunk_size": 8,
    "index_topk": 8,
    "index_topk_blocks": 4,
    "index_block_size": 4,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
    "chunk_size": 16,
    "mamba_chunk_size": 16,
    "block_size": 16,
    "rel_extent": 64,
    "ngram_vocab_size_base": 101,
    "split_ngram_parts": 2,
}
"""Upper limits of keys."""

HEAD_COUNTS = {key for key, size in SIZES.items() if size == HEADS and "head" in key}
"""Keys whose different values must stay multiples of one another."""

KEY_VALUE_HEADS = {
    "num_key_value_heads": "num_attention_heads",
    "swa_num_key_value_heads": "swa_num_attention_heads",
    "num_kv_heads": "num_attention_heads",
    "kv_n_heads": "num_attention_heads",
    "num_query_groups": "num_attention_heads",
}
"""Keys of key-value head counts, each with the key of the head count that it divides.

A narrow copy has as many as heads, one, or half of the fewest heads.

In a narrow copy there are as many, one, or half of the fewest.
"""

SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
"""Ids below those that tests draw."""

TOKENS = ("_token_id", "_token_index")
"""Suffixes of other special ids, which move to the end of the vocabulary if beyond it."""

WIDTH_OR_NOT = ("embedding_size", "embedding_dim", "word_embed_proj_dim", "lru_width", "attention_hidden_size")
"""Widths that equal the stream's in the narrow copy where they do in the real model."""

ROTARY_KEYS = ("rope_theta", "partial_rotary_factor", "llama_4_scaling_beta")
"""The rotary settings that remain without scaling."""

FAMILIES: dict[str, dict[str, Any]] = {
    # The head size is what rotary positions are a quarter of: they take qk_rope_head_dim, 8.
    "dots3_note_text": {"head_dim": 32},
    # Its projections take heads * head size to be the width.
    "helium": {"head_dim": WIDTH // HEADS},
    # Heads and their size make up expand * width.
    "mamba2": {"num_heads": 8, "head_dim": 16},
    # Attention reads the stream beside the embeddings, so it is twice as wide as the stream.
    "zamba": {"attention_hidden_size": 2 * WIDTH, "attention_head_dim": 2 * WIDTH // HEADS},
    "zamba2": {
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * WIDTH // HEADS,
        "n_mamba_heads": 8,
        "mamba_headdim": 16,
    },
    # Blocks of keys that are compressed into one: shorter than a test's sequences.
    "deepseek_v4": {"compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8}},
    # The rotary part is a fixed share of the head, which only this kind of rotary embedding knows.
    "mistral4": {
        "qk_rope_head_dim": 12,
        "qk_nope_head_dim": 12,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 60,
            "partial_rotary_factor": 0.5,
            "llama_4_scaling_beta": 0.1,
        },
    },
    # Keys that are pooled together before some are chosen: a divisor of how many are.
    "glm5_next_text": {"index_kpool": 4},
    # Here this key is the stream's width; in towers it may be anything.
    "kosmos_2_text_model": {"embed_dim": WIDTH},
    "kosmos_2_5_text_model": {"embed_dim": WIDTH},
    # Their head is the width shared out among the heads.
    "deepseek_ocr2_text": {"head_dim": 16},
    "unlimited_ocr_text": {"head_dim": 16},
}
"""Model type -> sizes that no key's meaning tells."""
