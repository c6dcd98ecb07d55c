"""A decoder's blocks as one forward pass shows them: order, stream values and readers."""

from collections.abc import Iterable

from torch import Tensor, nn

from weight_edit.anatomy.backtrace import Backtrace, CarriedAxis
from weight_edit.anatomy.graph.commuting import commuting_arguments
from weight_edit.anatomy.graph.graph import Call, Graph
from weight_edit.anatomy.parts import Reader


def block_calls(model: nn.Module, graph: Graph) -> list[Call]:
    """The calls of the blocks, which are the modules of the last `ModuleList` to return.

    Returns:
        In the order of returning; a block that runs several times is there as often. Empty when there is no list.
    """
    for call in reversed(graph.calls):
        path, _, number = call.name.rpartition(".")
        # A list within a block returns before the block.
        if number.isdigit() and isinstance(model.get_submodule(path), nn.ModuleList) and call.returned.ndim > 2:
            return [c for c in graph.calls if c.name.rpartition(".")[0] == path]
    return []


def stream_points(graph: Graph, calls: list[Call]) -> list[Tensor]:
    """Residual-stream values (last axis d_model): block inputs and outputs, and later sums."""
    around = [value for call in calls for value in (call.given, call.returned) if value is not None]
    return [*around, *_additions_behind(graph, calls[-1])]


def _additions_behind(graph: Graph, last: Call) -> list[Tensor]:
    """The sums after the last block, up to the first gain or other map."""
    width = last.returned.shape[-1]
    axes = {id(last.returned): -1}
    found = []
    for step in graph.steps[last.last :]:
        if not any(isinstance(argument, Tensor) and id(argument) in axes for argument in step.arguments):
            continue
        for position, made in enumerate(step.made):
            if not made.is_floating_point() or id(made) in axes:
                continue
            for axis in (axis for axis in range(-made.ndim, 0) if made.shape[axis] == width):
                carrying = commuting_arguments(step, position, axis) or {}
                members = [axes.get(id(step.arguments[place])) == at for place, at in carrying.items()]
                if any(members):
                    axes[id(made)] = axis
                    if axis == -1 and not all(members):
                        found.append(made)
    return found


def inner_calls(graph: Graph, call: Call) -> list[Call]:
    """The calls that ran within a call."""
    prefix = call.name + "."
    return [c for c in graph.calls if c.name.startswith(prefix) and call.first <= c.first and c.last <= call.last]


class StreamValues:
    """The values that are the stream itself, as opposed to terms to be added to it."""

    def __init__(self, writing: Backtrace, points: Iterable[Tensor]) -> None:
        """Args: the points are known stream values: the blocks' inputs and outputs."""
        self._known = {id(point): point for point in points}
        for step in writing.graph.steps:
            given = (argument for argument in step.arguments if isinstance(argument, Tensor))
            if any(id(value) in self._known for value in given):
                self._known |= {id(made): made for made in step.made if writing.carried(made) == _PLAIN}

    def __contains__(self, value: Tensor | None) -> bool:
        return value is not None and id(value) in self._known

    @property
    def values(self) -> list[Tensor]:
        """All stream values; the stream lies along their last axis."""
        return list(self._known.values())


_PLAIN = CarriedAxis(-1, ())


def middle(call: Call, inner: list[Call], stream: StreamValues) -> Call | None:
    """The first call whose input is the stream between a block's additions; None if none is."""
    for candidate in inner:
        inside = candidate.given is not None and candidate.given in stream
        if inside and not same(candidate.given, call.given) and not same(candidate.given, call.returned):
            return candidate
    return None


def readers(point: Tensor, inner: list[Call], layer: int | None) -> list[Reader]:
    """The modules with weights whose input is the stream or a norm of it."""
    found = []
    direct = _reading(point, inner)
    if direct:
        found.append(Reader(None, direct, layer))
    for norm in inner:
        if same(norm.given, point) and _is_norm(norm):
            found.append(Reader(norm.name, _reading(norm.returned, inner), layer))
    return found


def same(a: Tensor | None, b: Tensor | None, tolerance: float = 1e-5) -> bool:
    """Whether two tensors hold the same vectors up to float32 rounding, in any leading shape."""
    if a is None or b is None or a.shape[-1:] != b.shape[-1:] or a.numel() != b.numel() or not a.numel():
        return False
    if not (a.is_floating_point() and b.is_floating_point()):
        return False
    return bool((a.reshape(-1) - b.reshape(-1)).abs().max() <= tolerance * b.abs().max().clamp_min(1e-12))


def _reading(value: Tensor, inner: list[Call]) -> tuple[str, ...]:
    """The innermost modules with weights whose input is a value."""
    names = dict.fromkeys(c.name for c in inner if _has_matrix(c.module) and same(c.given, value))
    return tuple(name for name in names if not any(other.startswith(name + ".") for other in names))


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))


def _is_norm(call: Call) -> bool:
    """Whether a call is of a module without matrices that changes its input but not the shape."""
    matrices = any(parameter.ndim >= 2 for parameter in call.module.parameters())
    given = call.given
    return not matrices and given is not None and given.shape == call.returned.shape and not same(given, call.returned)
