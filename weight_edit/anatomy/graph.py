"""One forward pass of a model as a graph: every operation on tensors, what went in and what came out.

Operations are ATen's, written without mutation (`torch.func.functionalize`), so that each value is made once, by one
step: `x[mask] = y` is a step that makes a new value. Control flow that follows the numbers, such as which expert gets
which token, is recorded as it ran.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten


@dataclass(frozen=True, eq=False)
class Step:
    """One operation.

    Attributes:
        op: of ATen, without mutation.
        arguments: its positional and keyword arguments as one flat list; tensors and everything else.
        made: the tensors that it gave.
        number: its place in the order of running.
    """

    op: Any
    arguments: list[Any]
    layout: Any = field(repr=False)
    made: tuple[Tensor, ...] = field(repr=False)
    number: int

    def again(self, replaced: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        """What the operation gives for other tensors.

        Args:
            replaced: place in `arguments` -> tensor, of the shape that was there.
        """
        flat = [replaced.get(place, argument) for place, argument in enumerate(self.arguments)]
        args, kwargs = tree_unflatten(flat, self.layout)
        return _tensors(self.op(*args, **kwargs))

    @property
    def positional(self) -> tuple[Any, ...]:
        """Its positional arguments as they were, lists and all."""
        args, _ = tree_unflatten(self.arguments, self.layout)
        return tuple(args)

    @property
    def name(self) -> str:
        """As "aten.mul.Tensor"."""
        return str(self.op)


@dataclass(frozen=True, eq=False)
class Composite:
    """Several operations taken as one: the last, with some that made what it was given.

    Attributes:
        steps: in the order of running.
        arguments: the tensors that come in from outside.
    """

    steps: tuple[Step, ...]
    arguments: list[Tensor]

    @classmethod
    def of(cls, steps: Sequence[Step]) -> "Composite":
        """Taken together, in the order of running."""
        ordered = tuple(sorted(steps, key=lambda step: step.number))
        inside = {id(made) for step in ordered for made in step.made}
        given = {id(a): a for step in ordered for a in step.arguments if isinstance(a, Tensor)}
        return cls(ordered, [value for key, value in given.items() if key not in inside])

    @property
    def made(self) -> tuple[Tensor, ...]:
        """What the last of them gave."""
        return self.steps[-1].made

    def again(self, replaced: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        """What they give for other tensors; see `Step.again`."""
        values = {id(self.arguments[place]): value for place, value in replaced.items()}
        given: tuple[Tensor, ...] = ()
        for step in self.steps:
            places = {p: values[id(a)] for p, a in enumerate(step.arguments) if id(a) in values}
            given = step.again(places)
            values |= {id(made): value for made, value in zip(step.made, given, strict=True)}
        return given


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a module, in the order of returning.

    Attributes:
        name: of the module.
        module: itself.
        given: its first tensor argument, or None.
        returned: the tensor that it gave, or the first of a tuple.
        keywords: names of the keyword arguments that were not None.
        first, last: numbers of the steps that ran in it: first <= number < last.
    """

    name: str
    module: nn.Module
    given: Tensor | None
    returned: Tensor
    keywords: frozenset[str]
    first: int
    last: int


class Graph:
    """What `record` gives.

    Attributes:
        steps: in the order of running.
        calls: of all modules that returned a floating-point tensor.
        output: the logits.
    """

    def __init__(self, model: nn.Module) -> None:
        self.steps: list[Step] = []
        self.calls: list[Call] = []
        self.output: Tensor | None = None
        self._maker: dict[int, Step] = {}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self._buffers = {id(b): name for name, b in model.named_buffers()}

    def add(self, step: Step) -> None:
        """Append a step."""
        self.steps.append(step)
        for tensor in step.made:
            # A view operation may give back what it was given.
            self._maker.setdefault(id(tensor), step)

    def maker(self, value: Tensor) -> Step | None:
        """The step that made a value; None for parameters, buffers and inputs."""
        return self._maker.get(id(value))

    def parameter(self, value: Tensor) -> str | None:
        """The name of a value that is a parameter."""
        return self._parameters.get(id(value))

    def buffer(self, value: Tensor) -> str | None:
        """The name of a value that is a buffer."""
        return self._buffers.get(id(value))

    def used_parameters(self) -> set[str]:
        """The names of all parameters that some step was given."""
        given = (a for step in self.steps for a in step.arguments if isinstance(a, Tensor))
        return {name for name in map(self.parameter, given) if name is not None}


def record(model: nn.Module, inputs: Mapping[str, Any]) -> Graph:
    """Run a model once and record it.

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
        self._graph.add(Step(func, flat, layout, _tensors(output), len(self._graph.steps)))
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
                self._graph.calls.append(Call(name, module, given, value, used, first, last))

        yield module.register_forward_pre_hook(enter, with_kwargs=True)
        yield module.register_forward_hook(leave)

    def inner(self, tensor: Tensor) -> Tensor:
        """The value of the graph behind a tensor that the model sees, which is a wrapper around it."""
        # What was written into it through a view is put in only when an operation other than a view asks for it.
        if torch._is_functional_tensor(tensor):
            torch._sync(tensor)
        self._asking = True
        try:
            torch.ops.aten.alias(tensor)
        finally:
            self._asking = False
        assert self._asked is not None
        return self._asked


@contextmanager
def _allowed(recorder: "_Recorder") -> Iterator[None]:
    """Let models do what functional tensors do not allow for: custom autograd functions, and going through Python."""
    apply = torch.autograd.Function.__dict__["apply"]
    tolist, numpy, tensor = Tensor.tolist, Tensor.numpy, torch.tensor
    in_place = {name: getattr(Tensor, name) for name in ("__iand__", "__ior__", "__ixor__")}

    def forward(function: Any, *args: Any, **kwargs: Any) -> Any:
        separate = function.setup_context is not torch.autograd.Function.setup_context
        context = () if separate else (torch.autograd.function.FunctionCtx(),)
        return function.forward(*context, *args, **kwargs)

    def from_numbers(data: Any, *args: Any, **kwargs: Any) -> Tensor:
        return tensor(tree_map_only(Tensor, lambda value: tolist(recorder.inner(value)), data), *args, **kwargs)

    torch.autograd.Function.apply = classmethod(forward)  # type: ignore[assignment]
    Tensor.tolist = lambda value: tolist(recorder.inner(value))  # type: ignore[method-assign]
    Tensor.numpy = lambda value, **kwargs: numpy(recorder.inner(value), **kwargs)  # type: ignore[method-assign,assignment]
    torch.tensor = from_numbers
    Tensor.__iand__ = Tensor.bitwise_and_  # type: ignore[assignment]
    Tensor.__ior__ = Tensor.bitwise_or_  # type: ignore[assignment]
    Tensor.__ixor__ = Tensor.bitwise_xor_  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.autograd.Function.apply = apply
        Tensor.tolist, Tensor.numpy, torch.tensor = tolist, numpy, tensor  # type: ignore[method-assign]
        for name, method in in_place.items():
            setattr(Tensor, name, method)


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


def _tensors(output: Any) -> tuple[Tensor, ...]:
    return tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
