"""Small sizes of vision and audio towers and projectors: rules by the name of a key, and data for what no rule tells.

A value that is `TEXT` stands for the width of the narrow text part, which a projector has to give.
"""

from typing import Any

TEXT = "width of the text part"
WIDTH = 32
HEADS = 2
HEAD = WIDTH // HEADS
INNER = 40
PATCH = 4
GRID = 4
"""Patches along each side of an image; divisible by every merging of patches that is known."""
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
}
"""What a key of a tower becomes, where the tower has it."""

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
"""Keys of a tower that say how wide what it gives is."""

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
"""What a key of the whole becomes, where text and towers are parts of it."""

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
"""Keys of a tower or of the whole that name blocks of a tower."""

TOWERS: dict[str, dict[str, Any]] = {}
"""By the tower's model type."""

MODELS: dict[str, dict[str, Any]] = {}
"""By the whole's model type."""
