"""Biases that a model's config can turn on, for edits that add a constant.

Names and shapes come from building the model with the setting on; what the setting creates besides is written as
zeros, which change nothing. A model whose config has no such setting cannot have the bias: runtimes build what the
config says, and would drop it.
"""

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from weight_edit.anatomy.narrow.small import build
from weight_edit.anatomy.narrow.sub_configs import parts
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError

FLAGS = ("mlp_bias", "use_mlp_bias", "attention_bias", "use_bias", "add_bias_linear", "bias")
"""Config keys that turn biases on, the most particular first."""

DROPPED_BY = "transformers, vLLM, SGLang and llama.cpp"


@dataclass(frozen=True)
class NewBiases:
    """The biases that a config setting turns on.

    Attributes:
        config: the config with the setting on.
        changed: path of keys in config.json -> True.
        shapes: name of each new parameter -> its shape.
    """

    config: Any
    changed: Mapping[tuple[str, ...], bool]
    shapes: Mapping[str, tuple[int, ...]]


def new_biases(config: Any, wanted: Collection[str], *, trust_remote_code: bool = False) -> NewBiases:
    """The config setting that gives a model the biases that it lacks.

    Args:
        config: of the real model.
        wanted: names of the parameters.

    Raises:
        UnsupportedError: no setting of the config creates them.
    """
    plain = _shapes(config, trust_remote_code)
    for path, holder in _holders(config):
        for flag in FLAGS:
            if getattr(holder, flag, None) is not False:
                continue
            changed = copy.deepcopy(config)
            setattr(_at(changed, path), flag, True)
            try:
                shapes = _shapes(changed, trust_remote_code)
            except UnsupportedError:
                continue
            new = {name: shape for name, shape in shapes.items() if name not in plain}
            only_biases = all(len(shape) == 1 and "bias" in name for name, shape in new.items())
            kept = all(shapes.get(name) == shape for name, shape in plain.items())
            if set(wanted) <= new.keys() and only_biases and kept:
                return NewBiases(changed, {(*path, flag): True}, new)
    raise UnsupportedError(
        f"{type(config).__name__} has no setting that creates '{next(iter(wanted))}', and {DROPPED_BY} would drop "
        "a bias that the config does not announce; `weight-edit adapter` can carry it, and layer 0 needs none"
    )


def with_new_biases(model: nn.Module, flagged: nn.Module, values: Mapping[str, Any]) -> nn.Module:
    """A model with the setting on, the parameters of one without, and new biases or zeros.

    Args:
        model: without.
        flagged: with; its parameters are replaced.
        values: name of a bias -> what it holds, an array.
    """
    state = dict(model.state_dict())
    new = {name: torch.zeros_like(p) for name, p in flagged.state_dict().items() if name not in state}
    for name, value in values.items():
        new[name] = torch.as_tensor(value).to(new[name])
    flagged.load_state_dict({**state, **new})
    return flagged


def _holders(config: Any) -> list[tuple[tuple[str, ...], Any]]:
    """The config and its nested configs, the language model's first."""
    inner = [((name,), part) for name, part in parts(config)]
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    inner.sort(key=lambda pair: pair[1] is not text)
    return [*inner, ((), config)] if text is not config else [((), config), *inner]


def _at(config: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        config = getattr(config, name)
    return config


def _shapes(config: Any, trust_remote_code: bool) -> dict[str, tuple[int, ...]]:
    """The parameter shapes of the full-size model."""
    try:
        model = build(config, device="meta", trust_remote_code=trust_remote_code)
    except FOREIGN_ERRORS as error:
        raise UnsupportedError(str(error)) from error
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
