"""Config keys that describe single layers, as data."""

LEAST = 3
"""Blocks that a sample has at least: a first, a middle and a last one."""

MOST_IN_ORDER = 8
"""Up to so many blocks a sample is the beginning of the real model; beyond that, blocks are picked from it."""

INDICES = (
    "mlp_only_layers",
    "hybrid_layer_ids",
    "moe_layers",
    "full_attn_idxs",
    "local_layer_ids",
    "attn_layer_indices",
    "ple_layer_ids",
    "cross_attention_layers",
    "rope_scaling_layers",
)
"""Lists of the layers that are of some kind."""

SOURCES = ("kv_source_layers",)
"""Lists with an entry per layer: the layer whose keys and values it takes, often its own."""

LEADING = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
"""Numbers of layers at the beginning that are of another kind."""

TRAILING = ("num_kv_shared_layers",)
"""Numbers of layers at the end that are of another kind."""

LAST = ("moe_layer_end_index",)
"""The index of the last layer of a kind, which is the last layer."""

PERIODS = (
    "attn_layer_period",
    "expert_layer_period",
    "decoder_sparse_step",
    "layer_group_size",
    "global_attn_every_n_layers",
    "no_rope_layer_interval",
    "interleave_moe_layer_step",
    "moe_layer_interval",
    "full_attention_interval",
)
"""Kinds of layers repeat after so many: blocks of such a config can only be cut off at the end."""

BOUNDARIES = ("n_layers_per_attn_res_block", "rescale_every")
"""Something happens to the stream after every so many layers: a sample has one more."""

BLOCK_COUNTS = ("num_layers_per_stack", "num_layers")
"""Numbers of blocks, where `num_hidden_layers` counts each block more than once."""

SAME_COUNTS = ("num_blocks",)
"""Other names under which a config repeats the number of blocks."""

PATTERNS = ("block_types",)
"""Lists that are repeated over all layers."""

RUNS = {"attention_types": "attention_layers"}
"""Run lengths (`[[kinds, repeats], ...]`) of another list."""

NOT_LAYERS = (
    "axial_pos_embds_dim",
    "axial_pos_shape",
    "eos_token_id",
    "mlp_multipliers",
    "ssm_multipliers",
    "time_step_limit",
)
"""Lists that have no entry per layer, however long they are."""
