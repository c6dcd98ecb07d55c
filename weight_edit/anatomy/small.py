"""A narrow copy of a model with all its blocks: the real classes and names, random weights, made in a moment.

The anatomy is found on this copy, so it needs no weights, and is proven on it, because every parameter is random:
default initialisation sets norm gains to 1 and biases to 0, which hides mistakes.
"""

import copy
from typing import Any

import torch
from torch import nn

from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, first_line

# d_model differs from heads * head size and from every other width, so that no two axes can be confused by length.
NARROW = {
    "hidden_size": 64,
    "intermediate_size": 88,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "vocab_size": 97,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def narrow_config(config: Any) -> Any:
    """A copy of a config with the same number and kinds of blocks and small widths."""
    narrow = copy.deepcopy(config)
    for key, value in NARROW.items():
        if getattr(narrow, key, None) is not None and not _derived(narrow, key):
            setattr(narrow, key, value)
    if getattr(config, "num_key_value_heads", None) == getattr(config, "num_attention_heads", None):
        narrow.num_key_value_heads = NARROW["num_attention_heads"]
    if hasattr(narrow, "quantization_config"):
        del narrow.quantization_config
    if isinstance(getattr(narrow, "rope_parameters", None), dict):
        narrow.rope_parameters = _plain_rotary(narrow.rope_parameters)
    return narrow


def _plain_rotary(parameters: dict[str, Any]) -> dict[str, Any]:
    """Rotary parameters without scaling: its lists have the real width, and positions write nothing to the stream."""
    if any(isinstance(value, dict) for value in parameters.values()):
        return {kind: _plain_rotary(value) for kind, value in parameters.items()}
    kept: dict[str, Any] = {
        key: parameters[key] for key in ("rope_theta", "partial_rotary_factor") if key in parameters
    }
    return {"rope_type": "default", **kept}


def _derived(config: Any, key: str) -> bool:
    """Whether a config computes an entry from others (Falcon's head size)."""
    entry = getattr(type(config), key, None)
    return isinstance(entry, property) and entry.fset is None


def build(config: Any, *, device: str = "cpu", trust_remote_code: bool = False) -> nn.Module:
    """The causal language model of a config, with fresh weights, in evaluation mode.

    Args:
        device: "meta" builds names and shapes only.

    Raises:
        UnsupportedError: when transformers has no causal language model for it, or cannot build it.
    """
    from transformers import AutoModelForCausalLM

    try:
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config),
                dtype=torch.float32,
                attn_implementation="eager",
                trust_remote_code=trust_remote_code,
            )
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(
            f"{describe(config)} cannot be built as a causal language model: {first_line(error)}"
        ) from error
    return model.eval()


def randomise(model: nn.Module, seed: int) -> None:
    """Give every parameter random values, norm gains and biases included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim <= 1:
                parameter.add_(0.3 * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)


def narrow_model(config: Any, *, seed: int = 0, trust_remote_code: bool = False) -> nn.Module:
    """The narrow copy, with random parameters, float32."""
    model = build(narrow_config(config), trust_remote_code=trust_remote_code)
    randomise(model, seed)
    return model


def describe(config: Any) -> str:
    """The architecture's name for messages: its class where the config says it, else its model type."""
    names = getattr(config, "architectures", None)
    if isinstance(names, list) and names:
        return str(names[0])
    return f"model type '{getattr(config, 'model_type', '?')}'"
