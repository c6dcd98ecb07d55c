"""Narrow copies of models: the real classes, names and blocks, with random weights.

The anatomy is found on this copy, so it needs no weights, and is proven on it, because every parameter is random:
default initialisation sets norm gains to 1 and biases to 0, which hides mistakes.
"""

import copy
from typing import Any

import torch
from torch import nn

from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.classes import from_config, speaking_config
from weight_edit.anatomy.narrow.narrow import narrow_config
from weight_edit.anatomy.narrow.randomise import randomise
from weight_edit.anatomy.narrow.sub_configs import is_multimodal
from weight_edit.anatomy.narrow.towers import narrow_multimodal
from weight_edit.errors import UnsupportedError, UsageError, first_line

__all__ = ["build", "describe", "narrow_config", "narrow_model", "narrowed", "randomise"]


def build(config: Any, *, device: str = "cpu", experts: str = "eager", trust_remote_code: bool = False) -> nn.Module:
    """A config's language model with fresh weights, in evaluation mode.

    Args:
        device: "meta" builds names and shapes only.
        experts: transformers' implementation of experts; "batched_mm" asks no tensor for its numbers.

    Raises:
        UnsupportedError: when transformers has no language model for it, or cannot build it.
    """
    try:
        with torch.device(device):
            model = from_config(
                copy.deepcopy(config),
                dtype=torch.float32,
                attn_implementation="eager",
                experts_implementation=experts,
                trust_remote_code=trust_remote_code,
            )
    except MODEL_ERRORS as error:
        raise UnsupportedError(
            f"{describe(config)} cannot be built as a language model: {first_line(error)}"
        ) from error
    return model.eval()


def narrow_model(config: Any, *, seed: int = 0, trust_remote_code: bool = False) -> nn.Module:
    """The narrow copy of a config's model, with random float32 parameters.

    Raises:
        UnsupportedError: as `build`, or the config's parts do not go together.
        UsageError: a size in the config is 0.
    """
    try:
        narrow = narrowed(config)
    except MODEL_ERRORS as error:
        raise UnsupportedError(f"{describe(config)}: no narrow copy of it can be made ({first_line(error)})") from error
    with torch.random.fork_rng(devices=[]):
        # Some families draw decay rates and time steps as they are built.
        torch.manual_seed(seed)
        model = build(narrow, trust_remote_code=trust_remote_code)
    empty = next((name for name, parameter in model.named_parameters() if 0 in parameter.shape[1:]), None)
    if empty is not None:
        raise UsageError(f"{describe(config)}: a size in config.json is 0: by it, '{empty}' has no numbers")
    randomise(model, seed)
    return model


def narrowed(config: Any) -> Any:
    """A config with as many text blocks of the same kinds, small widths and tiny towers."""
    speaking = speaking_config(config)
    return narrow_multimodal(speaking, narrow_config) if is_multimodal(speaking) else narrow_config(speaking)


def describe(config: Any) -> str:
    """The architecture's name for messages: its class, else its model type."""
    names = getattr(config, "architectures", None)
    if isinstance(names, list) and names:
        return str(names[0])
    return f"model type '{getattr(config, 'model_type', '?')}'"
