"""Recording of one forward pass as a graph of operations without mutation."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from weight_edit.anatomy.graph.graph import Call, Graph, Operation, tensors_in


def record(model: nn.Module, inputs: Mapping[str, Any]) -> Graph:
    """The recorded graph of one run of a model.

    Args:
        model: in memory, in evaluation mode.
        inputs: its keyword arguments.
    """
    graph = Graph(model)
    recorder = _Recorder(graph)
    handles = [handle for name, module in model.named_modules() if name for handle in recorder.watch(name, module)]

    def run(given: dict[str, Any]) -> Tensor:
        logits: Tensor = model(**given, use_cache=False).logits
        return logits

    try:
        with torch.no_grad(), _allowed(recorder):
            functional = torch.func.functionalize(run, remove="mutations")
            with recorder:
                output = functional(dict(inputs))
    finally:
        for handle in handles:
            handle.remove()
    graph.output = output
    return graph


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph
        self._asked: Tensor | None = None
        self._asking = False
        self._open: list[tuple[Tensor | None, frozenset[str], int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if self._asking:
            self._asked = args[0]
            return output
        flat, layout = tree_flatten((args, kwargs or {}))
        self._graph.add(Operation(func, flat, layout, tensors_in(output), len(self._graph.steps)))
        return output

    def watch(self, name: str, module: nn.Module) -> Iterator[Any]:
        """Record a module's calls."""

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = first_tensor([*args, *kwargs.values()])
            used = frozenset(key for key, value in kwargs.items() if value is not None)
            self._open.append((None if given is None else self.inner(given), used, len(self._graph.steps)))

        def leave(_: nn.Module, __: Any, output: Any) -> None:
            given, used, first = self._open.pop()
            returned = first_tensor([output])
            if returned is not None and returned.is_floating_point():
                value = self.inner(returned)
                last = len(self._graph.steps)
                self._graph.calls.append(
                    Call(name=name, module=module, given=given, returned=value, keywords=used, first=first, last=last)
                )

        yield module.register_forward_pre_hook(enter, with_kwargs=True)
        yield module.register_forward_hook(leave)

    def inner(self, tensor: Tensor) -> Tensor:
        """The graph's value inside the functional wrapper that the model sees."""
        # What was written into it through a view is put in only when an operation other than a view asks for it.
        if torch._is_functional_tensor(tensor):
            torch._sync(tensor)
        self._asking = True
        try:
            torch.ops.aten.alias(tensor)
        finally:
            self._asking = False
        if self._asked is None:
            raise RuntimeError("the recorder was not asked for the value behind a tensor")
        return self._asked


@contextmanager
def _allowed(recorder: "_Recorder") -> Iterator[None]:
    """Within the context, functional tensors support custom autograd functions and `tolist`.

    Torch itself is changed for the length of a recording, in all threads.
    """
    tolist, numpy, tensor = Tensor.tolist, Tensor.numpy, torch.tensor

    def apply(function: Any, *args: Any, **kwargs: Any) -> Any:
        separate = function.setup_context is not torch.autograd.Function.setup_context
        context = () if separate else (torch.autograd.function.FunctionCtx(),)
        return function.forward(*context, *args, **kwargs)

    def from_numbers(data: Any, *args: Any, **kwargs: Any) -> Tensor:
        return tensor(tree_map_only(Tensor, lambda value: tolist(recorder.inner(value)), data), *args, **kwargs)

    with ExitStack() as changed:
        for owner, name, value in (
            (torch.autograd.Function, "apply", classmethod(apply)),
            (torch, "tensor", from_numbers),
            (Tensor, "tolist", lambda value: tolist(recorder.inner(value))),
            (Tensor, "numpy", lambda value, **kwargs: numpy(recorder.inner(value), **kwargs)),
            (Tensor, "__iand__", Tensor.bitwise_and_),
            (Tensor, "__ior__", Tensor.bitwise_or_),
            (Tensor, "__ixor__", Tensor.bitwise_xor_),
        ):
            changed.callback(_put_back, owner, name, vars(owner).get(name))
            setattr(owner, name, value)
        yield


def _put_back(owner: Any, name: str, stored: Any) -> None:
    # What was inherited was not the owner's.
    if stored is None:
        delattr(owner, name)
    else:
        setattr(owner, name, stored)


def first_tensor(values: Any) -> Tensor | None:
    """The first tensor within nested tuples, lists and transformers' output objects."""
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
