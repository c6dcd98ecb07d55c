"""A traced forward pass of a small model: its blocks, its stream and its writers."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torch import Tensor, nn

from weight_edit.anatomy.backtrace import Backtrace, NotUnderstoodError
from weight_edit.anatomy.blocks import block_calls, stream_points
from weight_edit.anatomy.graph.graph import Call, Graph
from weight_edit.anatomy.graph.recording import record
from weight_edit.anatomy.mixing import mixing_parts
from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.anatomy.parts import Writer
from weight_edit.anatomy.release_data import RUNS_WITH
from weight_edit.anatomy.writers import writers_of
from weight_edit.errors import UnsupportedError, first_line


@dataclass(frozen=True)
class Trace:
    """The result of tracing one forward pass.

    Attributes:
        graph: its operations.
        calls: of the blocks, in the order of running.
        points: values that are the stream; see `blocks.stream_points`.
        writing: what carries the stream.
        writers: what writes to it, in the order of writing.
    """

    graph: Graph
    calls: list[Call]
    points: list[Tensor]
    writing: Backtrace
    writers: list[Writer]


def trace_forward(model: Any, inputs: Mapping[str, Any], name: str) -> Trace:
    """Record a forward pass and follow its stream from all blocks back to the sources.

    Args:
        model: small, in memory.
        inputs: keyword arguments of a forward pass.
        name: of the architecture, for messages.

    Raises:
        UnsupportedError: with what writes into the stream without being understood, or the reason.
    """
    try:
        graph = record(model, inputs)
    except MODEL_ERRORS as error:
        raise UnsupportedError(f"{name}: {_does_not_run(model)} ({first_line(error)})") from error
    calls = block_calls(model, graph)
    if not calls:
        raise UnsupportedError(f"{name}: no list of blocks with a residual stream through them was found")
    writing = Backtrace(graph)
    points = stream_points(graph, calls)
    try:
        writing.follow(points)
        mixing = mixing_parts(model, inputs, graph, calls)
        writers = writers_of(model, writing, embedding_of(model), calls, mixing)
    except NotUnderstoodError as error:
        raise UnsupportedError(f"{name}: {_where(graph, error)}{_side_by_side(model, calls)}") from error
    except MODEL_ERRORS as error:
        raise UnsupportedError(f"{name}: its stream could not be followed ({first_line(error)})") from error
    return Trace(graph, calls, points, writing, writers)


def embedding_of(model: Any) -> str:
    """The name of the token embedding's weight."""
    return f"{name_of(model, model.get_input_embeddings())}.weight"


def name_of(model: nn.Module, wanted: nn.Module) -> str:
    """The name of a module within a model."""
    return next(name for name, module in model.named_modules() if module is wanted)


def _does_not_run(model: Any) -> str:
    """The reason that a pass failed, with a release in which it runs, if one is known."""
    works = RUNS_WITH.get(str(model.config.model_type))
    if works is None:
        return "a narrow copy of it does not run"
    return f"its forward pass is broken in transformers {version('transformers')}; it runs in transformers {works}"


def _where(graph: Graph, error: NotUnderstoodError) -> str:
    """The writer that is not understood, and the module where it was found."""
    number = None if error.step is None else error.step.number
    around = [c.name for c in graph.calls if number is not None and c.first <= number < c.last]
    place = f"in '{around[0]}', " if around else ""
    return f"{place}{error.reason}"


def _side_by_side(model: Any, calls: list[Call]) -> str:
    """A hint for blocks that keep several streams in one axis."""
    one, all_ = model.get_input_embeddings().weight.shape[-1], calls[0].returned.shape[-1]
    return f" (blocks pass on {all_ // one} streams side by side)" if all_ > one and all_ % one == 0 else ""
