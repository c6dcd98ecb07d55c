"""Config keys that describe single layers, as data."""

LEAST = 3
"""The least number of blocks in a sample: a first, a middle and a last one."""

MOST_IN_ORDER = 8
"""The most blocks for which a sample is the model's beginning; else blocks are picked."""

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
"""Keys that list the layers of a kind."""

SOURCES = ("kv_source_layers",)
"""Keys that list, for each layer, the layer whose keys and values it uses."""

LEADING = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
"""Keys that count leading layers of another kind."""

TRAILING = ("num_kv_shared_layers",)
"""Keys that count trailing layers of another kind."""

LAST = ("moe_layer_end_index",)
"""Keys that hold the index of a kind's last layer, which is the model's last."""

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
"""Keys of a period of kinds: such configs can only be cut at the end."""

BOUNDARIES = ("n_layers_per_attn_res_block", "rescale_every")
"""Keys of a period at which the stream changes: a sample has one layer more."""

BLOCK_COUNTS = ("num_layers_per_stack", "num_layers")
"""Keys that count blocks where `num_hidden_layers` counts each more than once."""

SAME_COUNTS = ("num_blocks",)
"""Keys that repeat the number of blocks."""

PATTERNS = ("block_types",)
"""Keys of lists that repeat over all layers."""

RUNS = {"attention_types": "attention_layers"}
"""Key of run lengths (`[[kinds, repeats], ...]`) -> key of the list that they describe."""

NOT_LAYERS = (
    "axial_pos_embds_dim",
    "axial_pos_shape",
    "eos_token_id",
    "mlp_multipliers",
    "ssm_multipliers",
    "time_step_limit",
)
"""Keys of lists that are not per layer, whatever their length."""
