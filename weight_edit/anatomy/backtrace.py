"""The parameters that write into the residual stream, found by following values backwards.

Take a point of the stream, and ask of the operation that made it which of its arguments carry the stream's vectors on
(`commuting.py`); ask the same of these, until parameters are reached: those are what writes. Where an operation
multiplies every channel with a gain, or takes the mean off, a norm stands between: what comes before it carries the
vectors through that norm. An operation that is neither, or a source that is no parameter, is not understood, and named.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from weight_edit.anatomy.graph.commuting import commuting_arguments, commuting_composite, vanishes, with_noise
from weight_edit.anatomy.graph.graph import Graph, Operation
from weight_edit.anatomy.norms import NORMALISING, Through, normalises, standing_between, turning


@dataclass(frozen=True)
class StreamSource:
    """A parameter whose vectors along one axis end up in the stream.

    Attributes:
        parameter: its name.
        axis: counted from the end.
        through: what stands between it and the stream.
        scale: the constant that it is multiplied with on its way.
        step: the operation that took it in.
    """

    parameter: str
    axis: int
    through: Through
    scale: float
    step: Operation | None


@dataclass(frozen=True)
class CarriedAxis:
    """A value that carries the stream's vectors.

    Attributes:
        axis: along which they lie, counted from the end.
        through: what stands between the value and the stream.
    """

    axis: int
    through: Through


_Visit = tuple[Tensor, CarriedAxis, float, Operation | None]
"""A value to visit: (value, how it carries the stream, later constant factor, consumer)."""


class NotUnderstoodError(Exception):
    """Something other than a parameter behind known operations writes into the stream."""

    def __init__(self, reason: str, step: Operation | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.step = step


class Backtrace:
    """The values that carry the stream, and the parameters they come from."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.sources: dict[tuple[str, Through], StreamSource] = {}
        self._carried: dict[int, CarriedAxis] = {}
        self._behind: dict[int, list[Tensor]] = {}

    def carried(self, value: Tensor) -> CarriedAxis | None:
        """The axis along which a value carries the stream; None if it does not."""
        return self._carried.get(id(value))

    def parameters_behind(self, value: Tensor) -> set[str]:
        """The names of the parameters whose vectors a stream-carrying value consists of."""
        found: set[str] = set()
        seen: set[int] = set()
        waiting = [value]
        while waiting:
            value = waiting.pop()
            if id(value) not in seen:
                seen.add(id(value))
                name = self.graph.parameter(value)
                found.update(() if name is None else (name,))
                waiting.extend(self._behind.get(id(value), ()))
        return found

    def follow(self, starts: Iterable[Tensor]) -> None:
        """Follow values of the stream back to their sources.

        Args:
            starts: values whose last axis is the stream's.

        Raises:
            NotUnderstoodError: what the class says.
        """
        # One by one, so that what is not understood is found where it first comes in.
        for start in starts:
            self._follow(start)

    def _follow(self, start: Tensor) -> None:
        waiting: list[_Visit] = [(start, CarriedAxis(-1, ()), 1.0, None)]
        while waiting:
            value, carried, scale, taker = waiting.pop()
            known = self._carried.get(id(value))
            if known is not None:
                if (known.axis, turning(known.through)) != (carried.axis, turning(carried.through)):
                    raise NotUnderstoodError(_two_ways(known, carried), None)
                continue
            self._carried[id(value)] = carried
            before = self._before(value, carried, scale, taker)
            self._behind[id(value)] = [source for source, *_ in before]
            waiting.extend(before)

    def _before(self, value: Tensor, carried: CarriedAxis, scale: float, taker: Operation | None) -> list[_Visit]:
        """The arguments of a value's operation that carry the stream."""
        step = self.graph.maker(value)
        name = self.graph.parameter(value)
        if name is not None:
            key = (name, carried.through)
            self.sources.setdefault(key, StreamSource(name, carried.axis, carried.through, scale, taker))
            return []
        if not value.numel() or (step is None and not bool(value.any())):
            return []
        if step is None:
            what = self.graph.buffer(value)
            source = f"the constant '{what}'" if what else "a constant that is no parameter"
            raise NotUnderstoodError(f"{source} is written into the residual stream: no weight to edit", taker)
        position = next(i for i, made in enumerate(step.made) if made is value)
        judged = with_noise(step) if vanishes(step, position) else step
        if not bool(judged.made[position].any()):
            return []
        found = commuting_arguments(judged, position, carried.axis)
        if found is not None:
            factor = _constant_factor(step)
            return [
                (step.arguments[place], CarriedAxis(axis, self._through(carried, step, place)), scale * factor, step)
                for place, axis in found.items()
            ]
        composed = commuting_composite(self.graph, step, carried.axis)
        if composed is not None:
            together, places = composed
            return [
                (together.arguments[place], CarriedAxis(axis, carried.through), scale, step)
                for place, axis in places.items()
            ]
        between = standing_between(self.graph, step, position, carried.axis)
        if between is None:
            reason = f"what {step.name} gives is written into the residual stream, which is not understood"
            raise NotUnderstoodError(reason, step)
        return [
            (source, CarriedAxis(axis, carried.through + through), scale, step) for source, axis, through in between
        ]

    def _through(self, carried: CarriedAxis, step: Operation, place: int) -> Through:
        more = (NORMALISING,) if normalises(self.graph, step, place) else ()
        return carried.through + more


def _constant_factor(step: Operation) -> float:
    """The constant that an operation multiplies by; 1 for other operations."""
    if step.name not in ("aten.mul.Tensor", "aten.mul.Scalar", "aten.div.Tensor", "aten.div.Scalar"):
        return 1.0
    for argument in step.arguments:
        number = argument.item() if isinstance(argument, Tensor) and argument.numel() == 1 else argument
        # A gate that is closed on a narrow copy is no constant.
        if isinstance(number, int | float) and number != 0:
            return float(number) if ".mul." in step.name else 1.0 / float(number)
    return 1.0


def _two_ways(one: CarriedAxis, other: CarriedAxis) -> str:
    if one.axis != other.axis:
        return "a value is added along two of its axes"
    factors = (*turning(one.through), *turning(other.through))
    factor = next((f for f in factors if f not in one.through or f not in other.through), factors[0])
    what = "a norm" if factor.parameter is None else f"the gain '{factor.parameter}'"
    if factor.parameter is not None and factor.parameter.endswith(".weight"):
        what = f"the norm '{factor.parameter.removesuffix('.weight')}'"
    return f"{what} lies in the residual stream itself: no edit of what writes keeps a direction out on both sides"
