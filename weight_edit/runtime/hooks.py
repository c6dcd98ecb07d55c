"""Hooks on a module's input, output or parameter, always removed at the end of a context."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor, nn

from weight_edit.edits.low_rank import LowRankMap
from weight_edit.runtime.offload.parameters import DiskParameter

if TYPE_CHECKING:
    from weight_edit.runtime.loading import Model

PASS: ContextVar[object | None] = ContextVar("PASS", default=None)
"""The forward pass that is under way, if it is one of the engine's: several may take turns block by block."""

# How blocks and their parts name their main tensor when it is passed by keyword, in the order they are tried.
_KEYWORDS = ("hidden_states", "inputs_embeds", "input", "x")


@dataclass(frozen=True)
class Hook:
    """A function to apply at one place of a model.

    Attributes:
        module: name within the causal language model, as `get_submodule` takes it; of a parameter, its name.
        where: "input" is the module's first tensor argument, positional or by keyword; "output" is the
            tensor it returns, or the first element where it returns a tuple; "parameter" is a parameter itself.
        fn: gets that tensor, (batch, tokens, d_model) in the model's dtype, and returns what replaces it. To
            read only, it returns what it got. A `LowRankMap` where it is one: where a batch holds prompts under
            several edits, each row then has its own factors in one product.
    """

    module: str
    where: Literal["input", "output", "parameter"]
    fn: Callable[[Tensor], Tensor]


def adding(vector: Tensor) -> LowRankMap:
    """The hook function that adds a vector (d_model,) at every token, in float32, rounded once."""
    constant = vector.detach().cpu().double().numpy()
    nothing = np.zeros((len(constant), 0))
    return LowRankMap(nothing, nothing, constant)


@contextmanager
def hooked(model: nn.Module, hooks: Iterable[Hook]) -> Iterator[None]:
    """Attach `hooks` to `model` for the length of the block.

    Hooks on one place run in the order given, each on what the one before returned, and after those of an
    enclosing `hooked`. All are detached on leaving, also when the body or attaching fails. Those that are attached
    within a pass of the engine act in that pass alone.

    Raises:
        AttributeError: `model` has no such module.
        ValueError: a hook's `where` is none of the three.
    """
    with ExitStack() as attached:
        for hook in hooks:
            if hook.where == "parameter":
                attached.enter_context(_changed(model.get_parameter(hook.module), hook.fn))
                continue
            module = model.get_submodule(hook.module)
            if hook.where == "input":
                handle = module.register_forward_pre_hook(_on_input(hook, PASS.get()), with_kwargs=True)
            elif hook.where == "output":
                handle = module.register_forward_hook(_on_output(hook, PASS.get()))
            else:
                raise ValueError(f"a hook's place is 'input', 'output' or 'parameter', not {hook.where!r}")
            attached.callback(handle.remove)
        yield


@contextmanager
def _changed(parameter: nn.Parameter, fn: Callable[[Tensor], Tensor]) -> Iterator[None]:
    if isinstance(parameter, DiskParameter):
        with parameter.changed(fn):
            yield
        return
    stored = parameter.data
    parameter.data = fn(stored)
    try:
        yield
    finally:
        parameter.data = stored


def _on_input(hook: Hook, own: object | None) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any]:
    def replace(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if own is not None and PASS.get() is not own:
            return None
        key, x = main_input(hook.module, args, kwargs)
        return ((hook.fn(x), *args[1:]), kwargs) if key is None else (args, {**kwargs, key: hook.fn(x)})

    return replace


def main_input(module: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str | None, Tensor]:
    """The stream among a module's arguments, and the name that it is passed by; None where it is the first of them.

    Raises:
        TypeError: there is none; names the module.
    """
    if args and isinstance(args[0], Tensor):
        return None, args[0]
    for key in _KEYWORDS:
        if isinstance(kwargs.get(key), Tensor):
            return key, kwargs[key]
    raise TypeError(f"{module} was called without a tensor that a hook on its input could take")


def _on_output(hook: Hook, own: object | None) -> Callable[[nn.Module, Any, Any], Any]:
    def replace(_: nn.Module, __: Any, output: Any) -> Any:
        if own is not None and PASS.get() is not own:
            return None
        if isinstance(output, Tensor):
            return hook.fn(output)
        if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
            first = hook.fn(output[0])
            # A named tuple keeps its type: callers may read it by field.
            return type(output)(first, *output[1:]) if hasattr(output, "_fields") else (first, *output[1:])
        raise TypeError(f"{hook.module} returned {type(output).__name__}, not a tensor or a tuple that starts with one")

    return replace


def addition_hook(model: "Model", layer: int, vector: Tensor) -> Hook:
    """Add `vector` to the stream at the input of a block, at every token."""
    return Hook(model.anatomy.blocks[layer].module, "input", adding(vector))
