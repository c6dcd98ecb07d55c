"""Which arguments of an operation carry the stream's vectors on: those that commute with a map along one axis."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.helpers.toys import WIDTH, numbers, toy
from weight_edit.anatomy.graph.commuting import commuting_arguments, commuting_composite, mapped, vanishes, with_noise
from weight_edit.anatomy.graph.graph import Graph, Operation

X, Y = numbers(2, 5, WIDTH), numbers(2, 5, WIDTH, seed=1)
WEIGHT = numbers(WIDTH, 4)
INNER = numbers(2, 5, 4)
MASK = X[..., :1] > 0
INDEX = torch.tensor([4, 0, 2])
STREAMS = numbers(2, 3, WIDTH)
MIX = numbers(2, 5, 3)
EXPERTS = numbers(3, WIDTH, 4)


def last(run: Any, **parts: Tensor) -> tuple[Graph, Operation]:
    """The graph of a function of X and Y, and the last step of it that does anything."""
    _, graph = toy(lambda model, x, y: run(x, y), {"x": X, "y": Y})
    return graph, graph.steps[-1]


def carried(run: Any, axis: int = -1) -> set[tuple[str, int]] | None:
    """Which of "x", "y" and other tensors carry an axis of a function's result, each with its axis."""
    _, step = last(run)
    found = commuting_arguments(step, 0, axis)
    if found is None:
        return None
    names = [("x", X), ("y", Y), ("weight", WEIGHT), ("streams", STREAMS), ("experts", EXPERTS)]

    def name(value: Tensor) -> str:
        ordered = value.flatten().sort().values
        known = (n for n, v in names if v.numel() == value.numel() and torch.equal(v.flatten().sort().values, ordered))
        return next(known, "part")

    return {(name(step.arguments[place]), axis) for place, axis in found.items()}


BOTH = {("x", -1), ("y", -1)}
FOLLOWED = [
    ("a sum", lambda x, y: x + y, -1, BOTH),
    ("a difference, scaled", lambda x, y: torch.sub(x, y, alpha=0.3), -1, BOTH),
    ("a constant factor", lambda x, y: 3 * x, -1, {("x", -1)}),
    ("a number per token", lambda x, y: x * torch.rand(2, 5, 1), -1, {("x", -1)}),
    ("a division per token", lambda x, y: x / (1 + torch.rand(2, 5, 1)), -1, {("x", -1)}),
    ("a view", lambda x, y: x.view(10, WIDTH), -1, {("x", -1)}),
    ("a view that moves the axis", lambda x, y: x.view(2, 5, 1, WIDTH, 1), -2, {("x", -1)}),
    ("a permutation", lambda x, y: x.permute(2, 0, 1), -3, {("x", -1)}),
    ("expansion", lambda x, y: x[:, :1].expand(2, 7, WIDTH), -1, {("part", -1)}),
    ("concatenation of tokens", lambda x, y: torch.cat([x, y], dim=1), -1, BOTH),
    ("concatenation of many", lambda x, y: torch.cat([x, y] * 5, dim=1), -1, BOTH),
    ("stacking of streams", lambda x, y: torch.stack([x, y], dim=2), -1, BOTH),
    ("choosing of tokens", lambda x, y: x[:, INDEX], -1, {("x", -1)}),
    ("slicing", lambda x, y: x[:, 1:4], -1, {("x", -1)}),
    ("index_add", lambda x, y: x[0].index_add(0, INDEX, y[0, :3]), -1, {("part", -1)}),
    ("scattering", lambda x, y: x.masked_scatter(MASK.expand_as(x), y), -1, BOTH),
    ("index_put", lambda x, y: x[0].index_put((INDEX,), y[0, :3]), -1, {("part", -1)}),
    ("choosing of one or the other", lambda x, y: torch.where(MASK, x, y), -1, BOTH),
    ("mixing of tokens", lambda x, y: torch.bmm(torch.rand(2, 4, 5), x), -1, {("x", -1)}),
    ("mixing of streams", lambda x, y: torch.bmm(MIX, STREAMS), -1, {("streams", -1)}),
    ("a sum over tokens", lambda x, y: x.sum(1), -1, {("x", -1)}),
    ("a running sum over tokens", lambda x, y: x.cumsum(1), -1, {("x", -1)}),
    ("padding of tokens", lambda x, y: nn.functional.pad(x, (0, 0, 1, 1)), -1, {("x", -1)}),
    ("a matrix product", lambda x, y: INNER.view(10, 4) @ WEIGHT.T, -1, {("weight", -1)}),
    (
        "a product and a bias",
        lambda x, y: torch.addmm(x[0, 0], INNER.view(10, 4), WEIGHT.T),
        -1,
        {("part", -1), ("weight", -1)},
    ),
    ("a matrix product by experts", lambda x, y: torch.bmm(numbers(3, 5, 4), EXPERTS.mT), -1, {("experts", -1)}),
]


@pytest.mark.parametrize(("run", "axis", "found"), [case[1:] for case in FOLLOWED], ids=[c[0] for c in FOLLOWED])
def test_operations_that_hand_the_stream_on(run: Any, axis: int, found: Any) -> None:
    assert carried(run, axis) == found


REFUSED = [
    ("a nonlinearity", lambda x, y: x.relu()),
    ("a square", lambda x, y: x.square()),
    ("an elementwise product of two", lambda x, y: x * y),
    ("a gain per channel", lambda x, y: x * numbers(WIDTH)),
    ("an added constant per channel and a norm", lambda x, y: nn.functional.layer_norm(x, (WIDTH,))),
    ("a softmax over channels", lambda x, y: x.softmax(-1)),
    ("a running sum over channels", lambda x, y: x.cumsum(-1)),
    ("a flip of channels", lambda x, y: x.flip(-1)),
    ("a sort of channels", lambda x, y: x.sort(-1).values),
    ("a roll of channels", lambda x, y: x.roll(1, -1)),
    ("a mask of channels", lambda x, y: torch.where(torch.arange(WIDTH) > 2, x, y)),
    ("a maximum of two", lambda x, y: torch.maximum(x, y)),
    ("a softmax over tokens", lambda x, y: x.softmax(1)),
    ("a sum with a number", lambda x, y: x + 1.0),
    ("rounding", lambda x, y: x.round()),
]


@pytest.mark.parametrize("run", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_operations_that_do_not(run: Any) -> None:
    _, step = last(run)
    assert commuting_arguments(step, 0, -1) is None


def test_a_depthwise_convolution_does_not_hand_the_stream_on_nor_its_weight() -> None:
    _, step = last(lambda x, y: nn.functional.conv1d(x.mT, numbers(WIDTH, 1, 3), groups=WIDTH))
    assert commuting_arguments(step, 0, -2) is None


def test_a_full_convolution_writes_by_its_weight() -> None:
    _, step = last(lambda x, y: nn.functional.conv1d(INNER.mT, numbers(WIDTH, 4, 3)))
    (place,) = (p for p, a in enumerate(step.arguments) if isinstance(a, Tensor) and a.shape == (WIDTH, 4, 3))
    assert commuting_arguments(step, 0, -2) == {place: -3}


def test_a_square_weight_writes_along_its_outputs_not_along_its_inputs() -> None:
    square = numbers(WIDTH, WIDTH)
    _, step = last(lambda x, y: x.view(10, WIDTH) @ square)
    place = next(p for p, a in enumerate(step.arguments) if isinstance(a, Tensor) and torch.equal(a, square))
    assert commuting_arguments(step, 0, -1) == {place: -1}
    _, step = last(lambda x, y: square @ x.reshape(10, WIDTH).T)
    place = next(p for p, a in enumerate(step.arguments) if isinstance(a, Tensor) and torch.equal(a, square))
    assert commuting_arguments(step, 0, -2) == {place: -2}


def test_an_embedding_writes_by_its_rows() -> None:
    table = numbers(11, WIDTH)
    _, step = last(lambda x, y: nn.functional.embedding(torch.tensor([[3, 1], [0, 7]]), table))
    assert commuting_arguments(step, 0, -1) == {0: -1}


def test_of_several_results_each_is_asked_for_itself() -> None:
    _, graph = toy(lambda model, x: torch.cat([part * 2 for part in x.split([2, 3], dim=1)], dim=1), {"x": X})
    split = next(step for step in graph.steps if len(step.made) == 2)
    assert commuting_arguments(split, 0, -1) == commuting_arguments(split, 1, -1) == {0: -1}
    halves = next(step for step in toy(lambda m, x: x.split(3, dim=2)[1] * 2, {"x": X})[1].steps if len(step.made) == 2)
    assert commuting_arguments(halves, 1, -1) is None, "half of the channels are another space"


def test_what_has_no_bearing_is_not_among_the_carriers() -> None:
    _, step = last(lambda x, y: x.masked_scatter(torch.zeros(2, 5, 1, dtype=torch.bool), y))
    assert len(commuting_arguments(step, 0, -1) or {}) == 1


def test_what_would_bear_on_other_numbers_is_among_the_carriers() -> None:
    _, chosen = last(lambda x, y: torch.where(torch.ones(2, 5, 1, dtype=torch.bool), x, y))
    assert commuting_arguments(chosen, 0, -1) == {1: -1, 2: -1}
    for factor in (0.0, 1e-9):
        _, added = last(lambda x, y, factor=factor: x + factor * y)
        assert commuting_arguments(added, 0, -1) == {0: -1, 1: -1}


def test_what_bends_large_numbers_has_no_carriers() -> None:
    _, step = last(lambda x, y: (x * 1e-4).tanh())
    assert commuting_arguments(step, 0, -1) is None


def test_flattening_and_laying_among_others_commute_only_together() -> None:
    """As models lay the vectors of an image among those of text: `x.masked_scatter(mask, image.flatten())`."""
    mask = torch.zeros(2, 5, 1, dtype=torch.bool)
    mask[:, 1:3] = True
    image = numbers(4, WIDTH)

    def run(model: Any, x: Tensor, image: Tensor) -> Tensor:
        return x.masked_scatter(mask.expand_as(x), image.reshape(-1))

    _, graph = toy(run, {"x": X, "image": image})
    step = graph.steps[-1]
    assert commuting_arguments(step, 0, -1) is None
    found = commuting_composite(graph, step, -1)
    assert found is not None
    together, places = found
    assert {tuple(together.arguments[place].shape): axis for place, axis in places.items()} == {
        (2, 5, WIDTH): -1,
        (4, WIDTH): -1,
    }


def test_what_does_not_commute_together_either_is_none() -> None:
    _, graph = toy(lambda model, x: x.relu().reshape(-1).sin().view(2, 5, WIDTH), {"x": X})
    assert commuting_composite(graph, graph.steps[-1], -1) is None


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_turning_is_a_linear_map_along_one_axis_that_keeps_the_memory_layout(axis: int) -> None:
    value = X.permute(1, 2, 0)
    one, two = mapped(value, axis), mapped(2 * value, axis)
    assert one.stride() == value.stride()
    assert torch.allclose(two, 2 * one, atol=1e-6)
    other = (axis - 1) if axis > -3 else -1
    assert torch.allclose(mapped(value.flip(other), axis), one.flip(other), atol=1e-6)
    assert not torch.allclose(one, value, atol=0.1)
    spread = X[:, :1].expand(2, 7, WIDTH)
    assert mapped(spread, -1).shape == spread.shape


GOOD: list[Any] = [
    lambda x: x * 0.5,
    lambda x: x + x.flip(0),
    lambda x: x * torch.linspace(0.5, 2, x.shape[0])[:, None],
    lambda x: x[1:],
    lambda x: torch.cat([x, x], dim=0),
    lambda x: x.view(1, *x.shape).squeeze(0),
    lambda x: x.T.contiguous().T,
    lambda x: torch.ones(x.shape[0], x.shape[0]).tril() @ x,
    lambda x: x - x.mean(0),
    lambda x: torch.zeros_like(x).index_add(0, torch.arange(x.shape[0]).flip(0), x),
]
BAD: list[Any] = [
    lambda x: x.tanh(),
    lambda x: x * x,
    lambda x: x.flip(-1),
    lambda x: x * torch.linspace(0.5, 2, x.shape[1]),
    lambda x: x + 1,
    lambda x: x.softmax(-1),
]


def path(steps: list[Any]) -> bool:
    """Whether the stream is followed from the end of a composition of operations to its beginning."""

    def run(model: nn.Module, x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    _, graph = toy(run, {"x": numbers(7, 5)})
    assert graph.output is not None
    if not graph.steps:
        return True
    waiting, seen = [(graph.steps[-1].made[0], -1)], set()
    while waiting:
        value, axis = waiting.pop()
        step = graph.maker(value)
        if step is None or (id(value), axis) in seen:
            continue
        seen.add((id(value), axis))
        position = next(i for i, made in enumerate(step.made) if made is value)
        judged = with_noise(step) if vanishes(step, position) else step
        if not judged.made[position].any():
            continue
        found = commuting_arguments(judged, position, axis)
        if found is None:
            return False
        waiting += [(step.arguments[place], at) for place, at in found.items()]
    return True


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(GOOD), min_size=1, max_size=6))
def test_compositions_of_what_commutes_are_followed(steps: list[Any]) -> None:
    # Slices may leave no token.
    assert path(steps[:6])


@settings(max_examples=40, deadline=None)
@given(
    before=st.lists(st.sampled_from(GOOD), max_size=3),
    bad=st.sampled_from(BAD),
    after=st.lists(st.sampled_from(GOOD), max_size=3),
)
def test_one_operation_that_does_not_commute_anywhere_on_the_way_is_noticed(
    before: list[Any], bad: Any, after: list[Any]
) -> None:
    assert not path([*before, bad, *after])
