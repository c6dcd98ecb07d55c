"""The noise of a stack's precision, by transformers alone: no reply of a stack goes into it but the texts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from stacks.comparison import logits
from stacks.replies import Reply

BLOCK = 256
"""How many inputs share a scale in llama.cpp's products with K-quants; 32 where they are no multiple of it."""


def noise(load: Callable[[], Any], prompts: Sequence[Sequence[int]], said: Sequence[Reply], *, precision: str) -> float:
    """How far transformers' margin between its own two best tokens moves, at most, in another precision.

    Args:
        load: the model in float32, a new one each time.
        said: replies whose places are looked at.
        precision: a key of `PRECISIONS`.
    """
    texts = list(zip(prompts, said, strict=True))
    plain = load()
    before = [logits(plain, prompt, reply.tokens) for prompt, reply in texts]
    del plain
    changed = PRECISIONS[precision](load())
    worst = 0.0
    for (prompt, reply), rows in zip(texts, before, strict=True):
        best = rows.topk(2)
        there = logits(changed, prompt, reply.tokens).gather(-1, best.indices)
        worst = max(worst, float((best.values.diff() - there.diff()).abs().max()))
    return worst


def _float64(model: Any) -> Any:
    """Float32 against what has no noise to speak of."""
    return model.double()


def _float16(model: Any) -> Any:
    """Weights of linear layers and what goes into them in float16, sums in float32."""
    for layer in _linear(model):
        layer.weight.data = _rounded_to_half(layer.weight.data)
        layer.register_forward_pre_hook(lambda _, inputs: (_rounded_to_half(inputs[0]), *inputs[1:]))
    return model


def _8_bits(model: Any) -> Any:
    """What goes into linear layers in 8 bits with a scale for each block, as llama.cpp does for quantised weights."""
    for layer in _linear(model):
        layer.register_forward_pre_hook(lambda _, inputs: (_rounded_to_8_bits(inputs[0]), *inputs[1:]))
    return model


PRECISIONS: Mapping[str, Callable[[Any], Any]] = {"float32": _float64, "float16": _float16, "8 bits": _8_bits}
"""Name of a precision -> a model in float32 made to compute in it, or in float64 to show what float32 leaves off."""


def _linear(model: Any) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def _rounded_to_half(values: torch.Tensor) -> torch.Tensor:
    return values.half().float()


def _rounded_to_8_bits(values: torch.Tensor) -> torch.Tensor:
    blocks = values.unflatten(-1, (-1, BLOCK if values.shape[-1] % BLOCK == 0 else 32))
    scales = blocks.abs().amax(dim=-1, keepdim=True) / 127
    return torch.where(scales > 0, (blocks / scales).round() * scales, blocks).flatten(-2)
