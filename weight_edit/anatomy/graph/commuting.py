"""Operations that commute with every linear map along one axis, and so pass the stream on.

The stream's vectors lie along one axis of a value. An operation passes them on unchanged if it does not matter whether
a linear map M is applied along an axis of what goes in, or of what comes out: `op(M x) = M op(x)`. So do views, sums of
two values, gathering and scattering of tokens, weights per token, mixing of several streams. A matrix product
commutes with M along the output axis of its weight: there the weight is what writes. One random M decides, on the
recorded numbers; no list of operations is needed, and none that appears next year will be missing from it.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

from weight_edit.anatomy.graph.graph import CompositeOperation, Graph, Operation

# What is not equal differs by as much as the numbers themselves, since M is random.
_TOLERANCE = 1e-5
# Activations of real models are larger than those of narrow copies: what bends at such sizes is no linear map.
_SIZES = (1.0, 1000.0)


def commuting_arguments(step: Operation | CompositeOperation, position: int, axis: int) -> dict[int, int] | None:
    """The arguments, with axes, such that mapping them maps the result along its axis.

    Of several sets the smallest is given, with those further arguments that would bear on the result if they were not
    zero, or too small to show, or not chosen by a condition: a gate that is closed on these numbers may open on others.

    Args:
        step: the operation.
        position: which of its results.
        axis: of the result, counted from the end (negative).

    Returns:
        Place among the arguments -> axis, counted from the end; None when there is no such set.
    """
    result = step.made[position]
    for choice in _choices(step, result.shape[axis]):
        if _commutes(step, position, axis, choice, other={}, result=result):
            return _widened(step, position, axis, choice)
    return None


def _commutes(
    step: Operation | CompositeOperation,
    position: int,
    axis: int,
    choice: dict[int, int],
    *,
    other: dict[int, Tensor],
    result: Tensor,
) -> bool:
    """Whether mapping the chosen arguments maps the result, also with `other` arguments."""
    values = {place: other.get(place, step.arguments[place]) for place in choice}
    wanted = mapped(result, axis)
    return all(
        _equal(
            step.again({**other, **{place: size * mapped(values[place], at) for place, at in choice.items()}})[
                position
            ],
            size * wanted,
        )
        for size in _SIZES
    )


def _widened(step: Operation | CompositeOperation, position: int, axis: int, choice: dict[int, int]) -> dict[int, int]:
    """The chosen arguments, and those left out only because of their present numbers."""
    result = step.made[position]
    width = result.shape[axis]
    flipped: dict[int, Tensor] = {}
    if isinstance(step, Operation) and step.name == "aten.where.self":
        condition = step.arguments[0]
        flipped = {0: torch.rand(condition.shape, generator=torch.Generator().manual_seed(0)) < 0.5}
    for place in _places(step, width):
        if place in choice:
            continue
        noise = _noise_like(step.arguments[place], float(result.abs().max()))
        other = {**flipped, place: noise}
        without = step.again({**flipped, place: torch.zeros_like(noise)})[position]
        made = step.again(other)[position]
        if _equal(made, without):
            continue
        for at in range(-noise.ndim, 0):
            wider = {**choice, place: at}
            if noise.shape[at] == width and _commutes(step, position, axis, wider, other=other, result=made):
                choice = wider
                break
    return choice


def commuting_composite(graph: Graph, step: Operation, axis: int) -> tuple[CompositeOperation, dict[int, int]] | None:
    """`commuting_arguments` of an operation together with the makers of its arguments.

    It applies where the arguments have lost the axis: flattening a token's values and scattering them, for example,
    commute only together.

    Returns:
        The operations as one, and its arguments as in `commuting_arguments`; None when up to four levels do not help.
    """
    taken = [step]
    width = step.made[0].shape[axis]
    for _ in range(4):
        flat = [a for a in CompositeOperation.of(taken).arguments if a.is_floating_point() and width not in a.shape]
        makers = {id(maker): maker for a in flat if (maker := graph.maker(a)) is not None}
        if not makers or len(step.made) > 1:
            return None
        taken += makers.values()
        together = CompositeOperation.of(taken)
        found = commuting_arguments(together, 0, axis)
        if found is not None:
            return together, found
    return None


def vanishes(step: Operation, position: int) -> bool:
    """Whether a result is zero up to the rounding errors of its arguments."""
    given = [a.abs().max() for a in step.arguments if _has_numbers(a)]
    result = step.made[position].abs().max()
    return bool(result == 0) or (bool(given) and bool(result <= _TOLERANCE * max(given)))


def with_noise(step: Operation) -> Operation:
    """The same operation on random arguments, to see whether its result always vanishes."""
    noise = {place: _noise_like(value, 1.0) for place, value in enumerate(step.arguments) if _has_numbers(value)}
    arguments = [noise.get(place, argument) for place, argument in enumerate(step.arguments)]
    return Operation(step.op, arguments, step.layout, step.again(noise), step.number)


def mapped(value: Tensor, axis: int) -> Tensor:
    """The value with a random linear map applied along an axis."""
    matrix = _random_map(value.shape[axis]).to(value.dtype)
    moved = (value.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    # Operations on memory layout, such as view, ask for the strides that were there.
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).copy_(moved) if _dense(value) else moved


def _choices(step: Operation | CompositeOperation, width: int) -> Iterator[dict[int, int]]:
    places = _places(step, width)
    if len(places) > 6:
        # The members of a list, as of a concatenation, lie all the same way.
        places_by_axis = {axis: [p for p in places if _has(step.arguments[p], axis, width)] for axis in range(-4, 0)}
        yield from (dict.fromkeys(members, axis) for axis, members in places_by_axis.items() if members)
        return
    for size in range(1, len(places) + 1):
        for members in combinations(places, size):
            axes = [
                [a for a in range(-step.arguments[p].ndim, 0) if step.arguments[p].shape[a] == width] for p in members
            ]
            for chosen in product(*axes):
                yield dict(zip(members, chosen, strict=True))


def _places(step: Operation | CompositeOperation, width: int) -> list[int]:
    return [
        place
        for place, value in enumerate(step.arguments)
        if isinstance(value, Tensor) and value.is_floating_point() and width in value.shape
    ]


def _has_numbers(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0


def _noise_like(value: Tensor, size: float) -> Tensor:
    noise = size * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)).to(value.dtype)
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).copy_(noise) if _dense(value) else noise


def _has(value: Tensor, axis: int, width: int) -> bool:
    return value.ndim >= -axis and value.shape[axis] == width


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= _TOLERANCE * b.abs().max())


def _dense(value: Tensor) -> bool:
    """Whether no two of a tensor's elements share memory."""
    return all(stride > 0 or size == 1 for stride, size in zip(value.stride(), value.shape, strict=True))


@lru_cache(maxsize=16)
def _random_map(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, width, generator=generator, dtype=torch.float64) * width**-0.5
