"""Norms between a writer and the stream: operations that do not commute with linear maps.

A norm is `gain * x / rms(x)`, or `gain * (x - mean(x)) / std(x) + bias`. The division is one number per token, which
commutes. What is left are a gain per channel and taking the mean off, whatever the norm is called and however it is
written. A component along v behind `gain * x` is one along `gain * v` before it; behind `x - mean(x)`, it is one along
`v - mean(v)`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.anatomy.graph.graph import Graph, Operation

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Factor:
    """One step of a norm between a writer and the stream.

    Attributes:
        parameter: whose values, plus `offset`, are the gains; None where there are none.
        offset: 0, or 1 for families such as Gemma.
        does: "gain", or what `CENTRING` and `NORMALISING` do.
    """

    parameter: str | None
    offset: float = 0.0
    does: str = "gain"


CENTRING = Factor(None, does="centring")
"""Subtraction of the mean."""
NORMALISING = Factor(None, does="normalising")
"""Division by a length of the vector itself.

It changes no direction, but a vector from which something was removed before comes out longer.
"""
Through = tuple[Factor, ...]
"""The factors between a value and the stream, from the stream towards the writer."""


def turning(through: Through) -> Through:
    """The factors that change a direction: all but normalisation."""
    return tuple(factor for factor in through if factor != NORMALISING)


def normalises(graph: Graph, step: Operation, place: int) -> bool:
    """Whether an operation scales an argument by a value computed from that argument."""
    if step.name not in ("aten.mul.Tensor", "aten.div.Tensor"):
        return False
    x = step.arguments[place]
    maker = graph.maker(x)
    made_at = -1 if maker is None else maker.number
    others = [a for a in step.arguments if isinstance(a, Tensor) and a is not x]
    seen: set[int] = set()
    while others:
        value = others.pop()
        if value is x:
            return True
        maker = graph.maker(value)
        # What was made before x does not come from it.
        if maker is not None and maker.number > made_at and id(value) not in seen:
            seen.add(id(value))
            others += [a for a in maker.arguments if isinstance(a, Tensor)]
    return False


def standing_between(
    graph: Graph, step: Operation, position: int, axis: int
) -> list[tuple[Tensor, int, Through]] | None:
    """A norm operation's arguments that carry the stream: (argument, axis, factors).

    Args:
        graph: that the step is of.
        step: an operation that does not commute with linear maps.
        position, axis: where the stream is in its result; the axis is counted from the end.

    Returns:
        None when the operation is none of a norm.
    """
    result = step.made[position]
    if step.name == "aten.native_layer_norm.default":
        return _layer_norm(graph, step, axis) if position == 0 else None
    tensors = [argument for argument in step.arguments if isinstance(argument, Tensor)]
    if len(tensors) != 2:
        return None
    if step.name == "aten.mul.Tensor":
        for x, gain in (tensors, tensors[::-1]):
            factor = _gain(graph, gain, axis, result.shape[axis])
            if factor is not None and x.shape == result.shape:
                return [(x, axis, (factor,))]
    if step.name == "aten.sub.Tensor" and _is_mean(tensors[1], tensors[0], axis):
        return [(tensors[0], axis, (CENTRING,))]
    return None


def _layer_norm(graph: Graph, step: Operation, axis: int) -> list[tuple[Tensor, int, Through]] | None:
    x, shape, weight, bias = step.positional[:4]
    if axis != -1 or list(shape) != [x.shape[-1]]:
        return None
    gain = () if weight is None else (_gain(graph, weight, -1, x.shape[-1]),)
    if None in gain:
        return None
    found: list[tuple[Tensor, int, Through]] = [(x, -1, (*gain, NORMALISING, CENTRING))]
    return found if bias is None else [*found, (bias, -1, ())]


def _gain(graph: Graph, value: Tensor, axis: int, width: int) -> Factor | None:
    """The gain per channel that a value represents: a parameter, or 1 plus a parameter."""
    if value.numel() != width or value.ndim < -axis or value.shape[axis] != width:
        return None
    parameters = _sources(graph, value)
    if parameters is None or len(parameters) != 1:
        return None
    ((name, parameter),) = parameters.items()
    if parameter.numel() != width:
        return None
    for offset in (0.0, 1.0):
        wanted = parameter.detach().double().flatten() + offset
        if torch.allclose(value.double().flatten(), wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
            return Factor(name, offset)
    return None


def _sources(graph: Graph, value: Tensor) -> dict[str, Tensor] | None:
    """All parameters that a value is computed from; None if it depends on anything else."""
    name = graph.parameter(value)
    if name is not None:
        return {name: value}
    step = graph.maker(value)
    if step is None:
        return None
    found: dict[str, Tensor] = {}
    for argument in step.arguments:
        if isinstance(argument, Tensor):
            behind = _sources(graph, argument)
            if behind is None:
                return None
            found |= behind
    return found


def _is_mean(value: Tensor, of: Tensor, axis: int) -> bool:
    if value.ndim != of.ndim or value.shape[axis] != 1:
        return False
    mean = of.mean(axis, keepdim=True)
    return bool((value - mean).abs().max() <= _TOLERANCE * of.abs().max())
