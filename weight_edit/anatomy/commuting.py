"""How a value hands on what was added to it: by operations that commute with every linear map along one axis.

The stream's vectors lie along one axis of a value. An operation passes them on unchanged if it does not matter whether
a linear map M is applied along an axis of what goes in, or of what comes out: `op(M x) = M op(x)`. So do views, sums of
two values, gathering and scattering of tokens, weights per token, mixing of several streams. A matrix product
commutes with M along the output axis of its weight: there the weight is what writes. One random M decides, on the
recorded numbers; no list of operations is needed, and none that appears next year will be missing from it.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations, product

import torch
from torch import Tensor

from weight_edit.anatomy.graph import Composite, Graph, Step

# What is not equal differs by as much as the numbers themselves, since M is random.
_TOLERANCE = 1e-5


def carriers(step: Step | Composite, position: int, axis: int) -> dict[int, int] | None:
    """The arguments, each with an axis, that a map has to be applied to for it to come out along an axis of the result.

    Of several sets the smallest is given: an argument that does not bear on the numbers is not in it.

    Args:
        step: the operation.
        position: which of its results.
        axis: of the result, counted from the end (negative).

    Returns:
        Place among the arguments -> axis, counted from the end; None when there is no such set.
    """
    wanted = turned(step.made[position], axis)
    for choice in _choices(step, step.made[position].shape[axis]):
        given = step.again({place: turned(step.arguments[place], at) for place, at in choice.items()})
        if _equal(given[position], wanted):
            return choice
    return None


def carriers_together(graph: Graph, step: Step, axis: int) -> tuple[Composite, dict[int, int]] | None:
    """The same for an operation taken together with what made its arguments, where these have lost the axis.

    Flattening what a token is and laying it among others, for one, commute only taken together.

    Returns:
        The operations as one, and its arguments as in `carriers`; None when up to four levels do not help.
    """
    taken = [step]
    width = step.made[0].shape[axis]
    for _ in range(4):
        flat = [a for a in Composite.of(taken).arguments if a.is_floating_point() and width not in a.shape]
        makers = {id(maker): maker for a in flat if (maker := graph.maker(a)) is not None}
        if not makers or len(step.made) > 1:
            return None
        taken += makers.values()
        together = Composite.of(taken)
        found = carriers(together, 0, axis)
        if found is not None:
            return together, found
    return None


def turned(value: Tensor, axis: int) -> Tensor:
    """A value with the random map applied along an axis."""
    matrix = _random_map(value.shape[axis]).to(value.dtype)
    moved = (value.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    # Operations on memory layout, such as view, ask for the strides that were there.
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype).copy_(moved) if _dense(value) else moved


def _choices(step: Step | Composite, width: int) -> Iterator[dict[int, int]]:
    places = [
        place
        for place, value in enumerate(step.arguments)
        if isinstance(value, Tensor) and value.is_floating_point() and width in value.shape
    ]
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


def _has(value: Tensor, axis: int, width: int) -> bool:
    return value.ndim >= -axis and value.shape[axis] == width


def _equal(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= _TOLERANCE * b.abs().max())


def _dense(value: Tensor) -> bool:
    """Whether no two of its numbers share a place in memory."""
    return all(stride > 0 or size == 1 for stride, size in zip(value.stride(), value.shape, strict=True))


@lru_cache(maxsize=16)
def _random_map(width: int) -> Tensor:
    generator = torch.Generator().manual_seed(width)
    return torch.randn(width, width, generator=generator, dtype=torch.float64) * width**-0.5
