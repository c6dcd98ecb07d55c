"""One forward pass as a graph: every operation on tensors, with its inputs and outputs.

Operations are ATen's, written without mutation (`torch.func.functionalize`), so that each value is made once, by one
step: `x[mask] = y` is a step that makes a new value. Control flow that follows the numbers, such as which expert gets
which token, is recorded as it ran.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_unflatten


@dataclass(frozen=True, eq=False)
class Operation:
    """One recorded ATen operation.

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
        """The operation's results for other tensors.

        Args:
            replaced: place in `arguments` -> tensor, of the shape that was there.
        """
        flat = [replaced.get(place, argument) for place, argument in enumerate(self.arguments)]
        args, kwargs = tree_unflatten(flat, self.layout)
        return tensors_in(self.op(*args, **kwargs))

    @property
    def positional(self) -> tuple[Any, ...]:
        """The positional arguments, unflattened."""
        args, _ = tree_unflatten(self.arguments, self.layout)
        return tuple(args)

    @property
    def name(self) -> str:
        """The operation's name, such as "aten.mul.Tensor"."""
        return str(self.op)


@dataclass(frozen=True, eq=False)
class CompositeOperation:
    """Several operations as one: the last, with makers of its arguments.

    Attributes:
        steps: in the order of running.
        arguments: the tensors that come in from outside.
    """

    steps: tuple[Operation, ...]
    arguments: list[Tensor]

    @classmethod
    def of(cls, steps: Sequence[Operation]) -> "CompositeOperation":
        """The composite of some operations, in order of running."""
        ordered = tuple(sorted(steps, key=lambda step: step.number))
        inside = {id(made) for step in ordered for made in step.made}
        given = {id(a): a for step in ordered for a in step.arguments if isinstance(a, Tensor)}
        return cls(ordered, [value for key, value in given.items() if key not in inside])

    @property
    def made(self) -> tuple[Tensor, ...]:
        """The results of the last operation."""
        return self.steps[-1].made

    def again(self, replaced: Mapping[int, Tensor]) -> tuple[Tensor, ...]:
        """The results for other tensors; see `Operation.again`."""
        values = {id(self.arguments[place]): value for place, value in replaced.items()}
        given: tuple[Tensor, ...] = ()
        for step in self.steps:
            places = {p: values[id(a)] for p, a in enumerate(step.arguments) if id(a) in values}
            given = step.again(places)
            values |= {id(made): value for made, value in zip(step.made, given, strict=True)}
        return given


@dataclass(frozen=True, eq=False, kw_only=True)
class Call:
    """One call of a module.

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
    """The recording of one forward pass.

    Attributes:
        steps: in the order of running.
        calls: of all modules that returned a floating-point tensor.
        output: the logits.
    """

    def __init__(self, model: nn.Module) -> None:
        self.steps: list[Operation] = []
        self.calls: list[Call] = []
        self.output: Tensor | None = None
        self._maker: dict[int, Operation] = {}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self._buffers = {id(b): name for name, b in model.named_buffers()}

    def add(self, step: Operation) -> None:
        """Append an operation."""
        self.steps.append(step)
        for tensor in step.made:
            # A view operation may give back what it was given.
            self._maker.setdefault(id(tensor), step)

    def maker(self, value: Tensor) -> Operation | None:
        """The operation that made a value; None for parameters, buffers and inputs."""
        return self._maker.get(id(value))

    def parameter(self, value: Tensor) -> str | None:
        """The name of a parameter; None for any other value."""
        return self._parameters.get(id(value))

    def buffer(self, value: Tensor) -> str | None:
        """The name of a buffer; None for any other value."""
        return self._buffers.get(id(value))

    def used_parameters(self) -> set[str]:
        """The names of all parameters that some operation combined with other values."""
        behind = {key: {name} for key, name in self._parameters.items()}
        used: set[str] = set()
        for step in self.steps:
            given = [a for a in step.arguments if isinstance(a, Tensor)]
            names = set().union(*(behind.get(id(a), set()) for a in given))
            if given and all(id(a) in behind for a in given):
                # A transposed weight, or 1 plus a gain, may yet meet no token.
                behind |= {id(made): names for made in step.made}
            elif any(made.numel() for made in step.made):
                used |= names
        return used


def tensors_in(output: Any) -> tuple[Tensor, ...]:
    """All tensors within nested tuples, lists and dictionaries."""
    return tuple(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
