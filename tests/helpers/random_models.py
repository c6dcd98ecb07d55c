"""Small random models of several families in memory."""

import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, LlamaConfig

from tests.helpers.small_tokenizer import word_tokenizer
from weight_edit.runtime.loading import Model

COMMON = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def small_config(family: str):
    """A config of four blocks and width 32; Gemma's window of 4 tokens is shorter than the test prompts."""
    if family == "llama":
        return LlamaConfig(**COMMON, **HEADS, eos_token_id=4, pad_token_id=0, bos_token_id=None)
    if family == "gpt2":
        return GPT2Config(vocab_size=48, n_embd=32, n_layer=4, n_head=4, n_positions=64, eos_token_id=4)
    if family == "gemma3":
        return Gemma3TextConfig(
            **COMMON,
            **HEADS,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"] * 2,
            query_pre_attn_scalar=8,
            eos_token_id=4,
            pad_token_id=0,
            bos_token_id=None,
        )
    raise ValueError(family)


def random_model(family: str, seed: int = 0) -> Model:
    """Weights large enough that attention, positions and norm gains matter to the result."""
    model = AutoModelForCausalLM.from_config(small_config(family), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(parameter + 0.2 * noise if is_gain else 0.2 * noise)
    return Model.from_parts(model, word_tokenizer(), name=f"random {family}")
