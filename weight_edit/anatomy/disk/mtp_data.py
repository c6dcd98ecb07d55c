"""Published names of multi-token-prediction (MTP) layers, as data.

transformers does not load these layers with the model; vLLM, SGLang and transformers' own assisted generation draft
tokens with them. Each has a residual stream of its own: a projection of the normed hidden state of the model and the
normed embedding of the next token, then blocks like those of the model, then a norm and a head. Embedding and head are
the model's own in most runtimes, even where the checkpoint holds copies: there an edit of the model is an edit of them.
"""

import re
from dataclasses import dataclass

PLACES = tuple(
    re.compile(pattern)
    for pattern in (
        # EXAONE MoE, LongCat, MiMo V2, Nemotron-H, Qwen3-Next, Qwen3.5, Inkling.
        r"(?:.*\.)?mtp\.layers\.\d+\.",
        # MiMo.
        r"(?:.*\.)?mtp_layers\.\d+\.",
        # Ernie 4.5.
        r"(?:.*\.)?mtp_block\.\d+\.",
        # DeepSeek V4.
        r"(?:.*\.)?mtp\.\d+\.",
        # What stands beside the blocks: Qwen's `mtp.fc`; Ernie's `model.mtp_linear_proj.0`.
        r"(?:.*\.)?mtp\.",
        r"(?:.*\.)?(?=mtp_\w+\.\d+\.)",
    )
)
"""Prefixes of MTP tensors, first match first; the rest is the name within the block.

Blocks that are numbered on from the model's (DeepSeek V3, GLM 4.5, Hunyuan 3, Step 3.5) are told by their projection.
"""

WRAPPERS = ("transformer_layer.", "transformer_block.", "transformer.", "mtp_block.", "nextn.")
"""Names between the layer and its block's parts: LongCat, Inkling, Step 3.5, GGUF."""

PROJECTIONS = re.compile(
    r"(eh_proj|fc|fc_embedding|fc_hidden|input_proj|e_proj|h_proj|mtp_linear_proj\.\d+)\.(weight|bias)"
)
"""Linear maps (d_model, width) whose output an MTP layer's stream starts from."""

EMBEDDINGS = re.compile(r"(embed_tokens|word_embeddings)\.weight")
"""Copies of the model's embedding, (vocabulary, d_model)."""

READERS = re.compile(
    # Norms in front of the projection,
    r"(enorm|hnorm|embed_norm|hidden_norm|token_layernorm|hidden_layernorm|pre_fc_norm_embedding|pre_fc_norm_hidden"
    r"|mtp_emb_norm\.\d+|mtp_hidden_norm\.\d+|enorm\.m|hnorm\.m"
    # norms at the end of the stream,
    r"|norm|final_layernorm|shared_head\.norm|chain_norm|post_norm"
    # and heads.
    r"|shared_head\.head|shared_head\.output|lm_head|head)\.(weight|bias)"
    r"|hc_head_(fn|base|scale)"
    # Scales of activations are no weights.
    r"|.*\.(input_scale|input_activation_scale)"
)
"""Tensors that read an MTP layer's stream or the projection's input; none is edited."""


@dataclass(frozen=True)
class Rename:
    """An MTP block's tensor whose name or packing differs from the model's blocks.

    Attributes:
        pattern: of the name in the MTP block.
        real: the name in the model's block.
        axis: along which the vectors lie in it, if it writes; None where that is as in the model's.
    """

    pattern: str
    real: str
    axis: int | None = None


RENAMES = (
    # MiMo V2.
    Rename(r"pre_mlp_layernorm\.(.*)", r"post_attention_layernorm.\1"),
    # LongCat has two of each in a block of the model, and one in an MTP block.
    Rename(r"(self_attn|input_layernorm|post_attention_layernorm)\.(.*)", r"\1.0.\2"),
    Rename(r"mlp\.(.*)", r"mlps.0.\1"),
    # Experts one by one, (d_model, width) each, beside a model that has them in one tensor; and the other way round.
    Rename(r"(.*\bexperts)\.\d+\.down_proj\.weight", r"\1.down_proj", 0),
    Rename(r"(.*\bexperts)\.\d+\.(gate_proj|up_proj)\.weight", r"\1.gate_up_proj"),
    Rename(r"(.*\bexperts)\.down_proj", r"\1.0.down_proj.weight", 1),
    Rename(r"(.*\bexperts)\.gate_up_proj", r"\1.0.gate_proj.weight"),
)
"""Renamings tried in turn for a name that the model's blocks lack."""
