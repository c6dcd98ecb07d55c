"""The stream followed back to the parameters that it comes from, and what cannot be followed, by name."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.toys import WIDTH, numbers, toy
from weight_edit.anatomy.backtrace import Backtrace, NotUnderstoodError

INNER = numbers(2, 5, 4)


class Held(nn.Module):
    """A parameter, a buffer, and zeros that nothing was written to."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(numbers(WIDTH, 4))
        self.second = nn.Parameter(numbers(4, WIDTH, seed=1))
        self.square = nn.Parameter(numbers(WIDTH, WIDTH))
        self.gain = nn.Parameter(1 + 0.3 * numbers(WIDTH))
        self.register_buffer("table", numbers(5, WIDTH))
        self.register_buffer("matrix", numbers(WIDTH, 4))


def followed(run: Any) -> Backtrace:
    _, graph = toy(lambda model, inner: run(model.held, inner), {"inner": INNER}, held=Held())
    writing = Backtrace(graph)
    writing.follow([graph.steps[-1].made[0]])
    return writing


def sources(run: Any) -> dict[str, tuple[int, float]]:
    return {source.parameter: (source.axis, source.scale) for source in followed(run).sources.values()}


def test_sources_have_their_axis_and_their_scale() -> None:
    assert sources(lambda m, x: 0.5 * (x @ m.weight.T) + x @ m.second / 4) == {
        "held.weight": (-2, 0.5),
        "held.second": (-1, 0.25),
    }


def test_scales_on_the_way_are_multiplied() -> None:
    found = sources(lambda m, x: 3 * (2 * (x @ m.second)).view(10, WIDTH))
    assert found == {"held.second": (-1, 6.0)}


def test_what_was_started_from_zeros_is_only_what_was_put_in() -> None:
    def experts(m: Held, x: Tensor) -> Tensor:
        stream = torch.zeros(10, WIDTH)
        for rows, weight in (([0, 3], m.second), ([1, 2, 9], m.second)):
            index = torch.tensor(rows)
            stream.index_add_(0, index, x.view(10, 4)[index] @ weight)
        return stream

    assert sources(experts) == {"held.second": (-1, 1.0)}


def test_a_constant_that_is_written_is_named() -> None:
    with pytest.raises(NotUnderstoodError, match=r"the constant 'held\.table' is written into the residual stream"):
        followed(lambda m, x: x @ m.second + m.table)
    constant = numbers(5, WIDTH)
    with pytest.raises(NotUnderstoodError, match="a constant that is no parameter is written"):
        followed(lambda m, x: x @ m.second + constant)


def test_a_matrix_that_is_no_parameter_is_named() -> None:
    with pytest.raises(NotUnderstoodError, match=r"the constant 'held\.matrix' is written"):
        followed(lambda m, x: x @ m.second + x @ m.matrix.T)


def test_what_is_not_understood_is_named_with_its_step() -> None:
    with pytest.raises(NotUnderstoodError, match=r"what aten\.gelu\.default gives is written") as caught:
        followed(lambda m, x: x @ m.second + nn.functional.gelu(x @ m.second))
    assert caught.value.step is not None
    assert caught.value.step.name == "aten.gelu.default"


def test_a_product_of_two_that_both_carry_the_stream_is_not_understood() -> None:
    with pytest.raises(NotUnderstoodError, match=r"aten\.mul\.Tensor"):
        followed(lambda m, x: (x @ m.second) * (x @ m.weight.T))


def test_what_is_added_along_two_axes_is_refused() -> None:
    with pytest.raises(NotUnderstoodError, match="a value is added along two of its axes"):
        followed(lambda m, x: m.square + m.square.T)


def test_a_gain_in_the_stream_itself_is_named() -> None:
    """What is before the norm is added again behind it: no one direction before it is one behind it."""

    def run(m: Held, x: Tensor) -> Tensor:
        before = x @ m.second
        return before + m.gain * before

    with pytest.raises(NotUnderstoodError, match=r"the gain 'held\.gain' lies in the residual stream itself"):
        followed(run)


def test_dividing_by_a_length_in_the_stream_itself_turns_nothing_and_is_allowed() -> None:
    def run(m: Held, x: Tensor) -> Tensor:
        before = x @ m.second
        return before + before / before.norm(dim=-1, keepdim=True)

    assert set(sources(run)) == {"held.second"}


def test_which_values_carry_the_stream_and_what_they_are_made_of() -> None:
    _, graph = toy(lambda model, x: x @ model.held.second + x @ model.held.weight.T, {"x": INNER}, held=Held())
    writing = Backtrace(graph)
    end = graph.steps[-1].made[0]
    writing.follow([end])
    carried = writing.carried(end)
    assert carried is not None
    assert (carried.axis, carried.through) == (-1, ())
    assert writing.carried(INNER) is None
    assert writing.parameters_behind(end) == {"held.second", "held.weight"}
    one, other = (step for step in graph.steps if "mm" in step.name or "matmul" in step.name)
    assert writing.parameters_behind(one.made[0]) == {"held.second"}
    assert writing.parameters_behind(other.made[0]) == {"held.weight"}


def test_points_are_followed_one_by_one_until_the_first_that_is_not_understood() -> None:
    _, graph = toy(lambda model, x: (x @ model.held.second).relu(), {"x": INNER}, held=Held())
    writing = Backtrace(graph)
    good = next(s.made[0] for s in graph.steps if s.made[0].shape[-1] == WIDTH and s.name != "aten.relu.default")
    with pytest.raises(NotUnderstoodError):
        writing.follow([good, graph.steps[-1].made[0]])
    assert [source.parameter for source in writing.sources.values()] == ["held.second"]
