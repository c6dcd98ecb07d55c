"""The arithmetic of a forward pass, counted by running a model whose tensors have shapes and no numbers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.narrow.small import build, describe
from weight_edit.anatomy.parts import Anatomy
from weight_edit.errors import UnsupportedError, first_line


@dataclass(frozen=True, kw_only=True)
class PassCounts:
    """The arithmetic and the memory of a sequence's forward pass through the blocks, without the unembedding.

    A pass over n tokens takes `per_token * n + per_pair * n * n` FLOPs, a multiplication with an addition being two.

    Attributes:
        per_token: FLOPs for each token: of a mixture, those of the experts that it goes through.
        per_pair: FLOPs for each query and key, those that a causal mask hides among them, as they are computed.
        blocks: each block's share of the FLOPs, in order; their sum is 1 but for what comes before the blocks.
        kept_per_token: numbers that the cache of keys and values holds for each token.
        kept: numbers that it holds for each sequence, whatever its length, such as the states of recurrent blocks.
    """

    per_token: float
    per_pair: float
    blocks: tuple[float, ...]
    kept_per_token: float
    kept: float


def pass_counts(config: Any, anatomy: Anatomy, length: int, *, trust_remote_code: bool = False) -> PassCounts:
    """Count what a sequence of `length` tokens takes; exact at that length, and at twice of it.

    The real model is run on the meta device, or where its code asks tensors for numbers, on fake tensors: no weights,
    and no code for any family. Experts are run as transformers' "batched_mm", which computes those chosen alone.

    Raises:
        UnsupportedError: the model's code runs on neither.
    """
    reason: Exception | None = None
    for device, mode in (("meta", nullcontext), ("cpu", FakeTensorMode)):
        try:
            with mode():
                model = build(config, device=device, experts="batched_mm", trust_remote_code=trust_remote_code)
                once, twice = (_counted(model, anatomy, count, device) for count in (length, 2 * length))
        except (*MODEL_ERRORS, NotImplementedError) as error:
            reason = error
            continue
        per_pair = max(0.0, (twice.flops - 2 * once.flops) / (2 * length * length))
        kept_per_token = max(0.0, (twice.kept - once.kept) / length)
        return PassCounts(
            per_token=once.flops / length - per_pair * length,
            per_pair=per_pair,
            blocks=tuple(share / once.flops for share in once.blocks),
            kept_per_token=kept_per_token,
            kept=max(0.0, once.kept - kept_per_token * length),
        )
    assert reason is not None
    raise UnsupportedError(f"{describe(config)} does not run without numbers: {first_line(reason)}") from reason


@dataclass(frozen=True)
class _Count:
    """One sequence's FLOPs in front of the unembedding, those of each block, and the numbers in its cache."""

    flops: float
    blocks: Sequence[float]
    kept: float


def _counted(model: nn.Module, anatomy: Anatomy, length: int, device: str) -> _Count:
    given = {
        "input_ids": torch.zeros(1, length, dtype=torch.long, device=device),
        "attention_mask": torch.ones(1, length, dtype=torch.long, device=device),
    }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        found = model(**given, use_cache=True)
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(model).__name__
    head = by_module.get(f"{root}.{anatomy.unembedding}", 0)
    return _Count(
        flops=counter.get_total_flops() - head,
        blocks=[by_module.get(f"{root}.{block.module}", 0) for block in anatomy.blocks],
        kept=sum(tensor.numel() for tensor in _kept(found)),
    )


def _kept(found: Mapping[str, Any]) -> list[Tensor]:
    """The tensors of a model's output that are no logits: those of its cache, each once."""
    tensors = {id(tensor): tensor for name, value in found.items() if name != "logits" for tensor in _tensors(value)}
    return list(tensors.values())


def _tensors(value: Any, depth: int = 5) -> Iterator[Tensor]:
    """The tensors that a cache holds, whatever its class."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, str | bytes | type):
        inside: Iterable[Any] = ()
        if isinstance(value, Mapping):
            inside = value.values()
        elif isinstance(value, list | tuple):
            inside = value
        elif hasattr(value, "__dict__"):
            inside = vars(value).values()
        for each in inside:
            yield from _tensors(each, depth - 1)
