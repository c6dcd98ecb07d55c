"""One forward pass of a small model, with what went into and came out of every module."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """One module's call: its name, the module, its first tensor in and its first tensor out, in double precision.

    Calls are listed in the order in which they returned, so a module's parts come before the module itself.
    Modules without parameters are not listed: a dropout returns what it was given, and writes nothing of its own.
    """

    name: str
    module: nn.Module
    given: Tensor | None
    returned: Tensor
    keywords: frozenset[str]


def trace(model: nn.Module, ids: Tensor) -> list[Call]:
    """Run the model once on token ids (batch, tokens) and list the calls of its modules."""
    calls: list[Call] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            result = first_tensor([output])
            if result is not None and result.is_floating_point():
                given = first_tensor([*args, *kwargs.values()])
                kept = None if given is None else given.detach().double()
                used = frozenset(key for key, value in kwargs.items() if value is not None)
                calls.append(Call(name, module, kept, result.detach().double(), used))

        return hook

    handles = [
        module.register_forward_hook(record(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name and any(True for _ in module.parameters())
    ]
    try:
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def first_tensor(values: Any) -> Tensor | None:
    """The first tensor among values, looking into tuples, lists and transformers' output objects."""
    for value in values:
        if isinstance(value, Tensor):
            return value
        if isinstance(value, tuple | list):
            found = first_tensor(value)
            if found is not None:
                return found
        elif hasattr(value, "to_tuple"):
            found = first_tensor(value.to_tuple())
            if found is not None:
                return found
    return None


def same(a: Tensor | None, b: Tensor | None, tolerance: float = 1e-5) -> bool:
    """Whether two tensors are equal up to float32 rounding."""
    if a is None or b is None or a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= tolerance * b.abs().max().clamp_min(1e-12))


def within(calls: list[Call], parent: str) -> Iterator[Call]:
    """The calls of a module's descendants."""
    return (call for call in calls if call.name.startswith(parent + "."))
