"""A representative third of the catalogue: all well-known families, and every kind of structure in several."""

PROVEN = (
    # Dense, a norm before each part.
    "llama", "qwen2", "qwen3", "mistral", "ministral3", "gemma", "phi3", "olmo", "granite", "smollm3", "helium",
    "minicpm3", "apertus", "arcee", "ernie4_5", "hunyuan_v1_dense", "seed_oss", "nemotron", "starcoder2", "mpt", "opt",
    # A norm between writer and stream.
    "gemma2", "gemma3_text", "gemma4_text", "olmo2", "glm4", "exaone4", "hrm_text",
    # Parallel blocks; biases; Conv1D; a norm behind the embedding.
    "gpt2", "gpt-sw3", "gptj", "gpt_neox", "gpt_neo", "gpt_bigcode", "codegen", "falcon", "phi", "cohere", "cohere2",
    "stablelm", "bloom", "persimmon",
    # Experts.
    "mixtral", "gpt_oss", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "granitemoe", "jetmoe", "glm4_moe", "dots1",
    "minimax_m2", "llama4_text", "deepseek_v2", "deepseek_v3", "deepseek_v4",
    # State space, linear attention, convolution.
    "mamba", "mamba2", "falcon_mamba", "jamba", "bamba", "zamba2", "falcon_h1", "granitemoehybrid", "nemotron_h",
    "qwen3_next", "olmo_hybrid", "kimi_linear", "lfm2", "lfm2_moe", "recurrent_gemma",
    # Images.
    "gemma3", "gemma4", "mistral3", "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl",
    "qwen3_vl_moe", "qwen3_5", "internvl", "phi4_multimodal", "paligemma", "idefics3", "smolvlm", "aya_vision",
    "molmo2", "glm4v", "blip-2", "kimi_k25",
    # A projector that is a convolution; images and sounds that become tokens of the vocabulary.
    "hy_v4_vl", "apertus1p5",
    # Of kinds that are rare: LayerNorm behind a writer, Conv1D, several streams, sounds.
    "modernbert-decoder", "hy_v4", "moss_transcribe_diarize", "qwen2_5_omni_thinker",
)  # fmt: skip

REFUSED = {
    "bart": "is an encoder-decoder",
    "t5gemma2": "is an encoder-decoder",
    "bert": "is an encoder",
    "blt": "is an encoder and a decoder in one",
    "gemma4_assistant": "drafts tokens for another model",
    "diffusion_gemma": "reads its context and writes its answer in different streams",
    "pi0": "gives no logits of a next token",
    "xlnet": "reads in permuted order",
    "rwkv": "in 'rwkv.blocks.0.feed_forward', what aten.mul.Tensor gives is written into the residual stream",
    "minimax": "the norm 'model.layers.0.post_attention_layernorm' lies in the residual stream itself",
    "openai-gpt": "the norm 'transformer.h.0.ln_2' lies in the residual stream itself",
    "llama4": "its forward pass is broken in transformers 5.24.0; it runs in transformers 5.23.0",
    "inkling_text": "in 'model.layers.0.mlp_sconv', what aten.convolution.default gives is written",
}
"""Model type -> what the refusal says."""

REFUSED_VARIANTS = {
    ("opt", "350m"): "the norm 'model.decoder.layers.0.final_layer_norm' lies in the residual stream itself",
    ("bloom", "residual-after-norm"): "the norm 'transformer.h.0.post_attention_layernorm' lies in the residual stream",
}
"""The same for variants of families that are proven."""
