"""The blocks as a forward pass shows them: which list, in which order, the point between, who reads."""

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.toys import IDS, WIDTH, Block, Decoder, Mixer, Mlp, numbers
from weight_edit.anatomy.backtrace import Backtrace
from weight_edit.anatomy.blocks import StreamValues, block_calls, inner_calls, middle, readers, same
from weight_edit.anatomy.graph.graph import Call, Graph
from weight_edit.anatomy.graph.recording import record


class Parallel(nn.Module):
    """Both parts read the same norm and are added at once."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mixer, self.mlp = nn.RMSNorm(WIDTH), Mixer(), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        read = self.norm(x)
        return x + self.mixer(read) + self.mlp(read)


class Bare(nn.Module):
    """A part that reads the stream without a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class Backwards(Decoder):
    def stream(self, x: Tensor) -> Tensor:
        for block in reversed(self.blocks):
            x = block(x)
        return x


class Twice(Decoder):
    def stream(self, x: Tensor) -> Tensor:
        return super().stream(super().stream(x))


def seen(model: Decoder) -> tuple[Graph, list[Call], StreamValues]:
    graph = record(model, {"input_ids": IDS})
    calls = block_calls(model, graph)
    points = [value for call in calls for value in (call.given, call.returned) if value is not None]
    writing = Backtrace(graph)
    writing.follow(points)
    return graph, calls, StreamValues(writing, points)


def test_blocks_are_in_the_order_of_running() -> None:
    _, calls, _ = seen(Decoder([Block(), Block(), Block()]))
    assert [call.name for call in calls] == ["blocks.0", "blocks.1", "blocks.2"]
    _, calls, _ = seen(Backwards([Block(), Block()]))
    assert [call.name for call in calls] == ["blocks.1", "blocks.0"]


def test_a_block_that_runs_twice_is_there_twice() -> None:
    graph, calls, _ = seen(Twice([Block(), Block()]))
    assert [call.name for call in calls] == ["blocks.0", "blocks.1"] * 2
    first, again = calls[0], calls[2]
    assert {c.name for c in inner_calls(graph, first)} == {c.name for c in inner_calls(graph, again)}
    assert not {id(c) for c in inner_calls(graph, first)} & {id(c) for c in inner_calls(graph, again)}


def test_of_several_lists_it_is_the_one_that_returns_last() -> None:
    class Towered(Decoder):
        def __init__(self) -> None:
            super().__init__([Block(), Block()])
            self.tower = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
            self.blocks[1].parts = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])

        def stream(self, x: Tensor) -> Tensor:
            for layer in self.tower:
                x = layer(x)
            return super().stream(x)

    graph = record(model := Towered(), {"input_ids": IDS})
    assert [call.name for call in block_calls(model, graph)] == ["blocks.0", "blocks.1"]


def test_without_a_list_there_are_no_blocks() -> None:
    class Single(Decoder):
        def __init__(self) -> None:
            super().__init__([])
            self.only = Block()

        def stream(self, x: Tensor) -> Tensor:
            return self.only(x)

    graph = record(model := Single(), {"input_ids": IDS})
    assert block_calls(model, graph) == []


def test_the_middle_is_between_the_two_additions() -> None:
    graph, calls, stream = seen(Decoder([Block(), Block()]))
    for call in calls:
        found = middle(call, inner_calls(graph, call), stream)
        assert found is not None
        assert found.name == f"{call.name}.norm2"


@pytest.mark.parametrize("block", [Parallel, Bare])
def test_a_block_of_one_addition_has_no_middle(block: type[nn.Module]) -> None:
    graph, calls, stream = seen(Decoder([block(), block()]))
    assert [middle(call, inner_calls(graph, call), stream) for call in calls] == [None, None]


def test_readers_are_the_maps_that_are_given_a_norm_of_the_stream() -> None:
    graph, calls, stream = seen(Decoder([Block()]))
    (call,) = calls
    inner = inner_calls(graph, call)
    assert call.given is not None
    (first,) = readers(call.given, inner, 0)
    assert (first.norm, first.modules) == ("blocks.0.norm1", ("blocks.0.mixer.query", "blocks.0.mixer.value"))
    mid = middle(call, inner, stream)
    assert mid is not None
    assert mid.given is not None
    (second,) = readers(mid.given, inner, 0)
    assert (second.norm, second.modules) == ("blocks.0.norm2", ("blocks.0.mlp.up",))


def test_a_reader_without_a_norm() -> None:
    graph, calls, _ = seen(Decoder([Bare()]))
    (call,) = calls
    assert call.given is not None
    (reader,) = readers(call.given, inner_calls(graph, call), 0)
    assert (reader.norm, reader.modules) == (None, ("blocks.0.mlp.up",))


def test_what_is_added_to_the_stream_is_not_the_stream() -> None:
    graph, calls, stream = seen(Decoder([Block()]))
    given = {call.name: call for call in graph.calls}
    assert calls[0].returned in stream
    assert given["blocks.0.norm2"].given in stream
    assert given["blocks.0.mlp"].returned not in stream
    assert given["blocks.0.norm2"].returned not in stream
    assert None not in stream
    assert any(value is calls[0].given for value in stream.values)


def test_same_is_up_to_rounding_and_the_axes_in_front() -> None:
    x = numbers(2, 5, WIDTH)
    assert same(x, x.view(10, WIDTH) * (1 + 1e-7))
    assert not same(x, 1.001 * x)
    assert not same(x, x[:1])
    assert not same(x, None)
    assert not same(x, torch.ones(2, 5, WIDTH, dtype=torch.long))
