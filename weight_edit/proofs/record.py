"""A proven anatomy as JSON, without loss."""

import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from weight_edit.anatomy.disk.layout import Layout
from weight_edit.anatomy.parts import Anatomy


@dataclass(frozen=True)
class AblationProof:
    """The measurements on a narrow copy with random parameters and directions, in float32.

    Attributes:
        leak: the largest |v . x| / |x| over all residual points after the edit.
        leak_before: the same without the edit.
        logit_difference: the largest difference between hooked and edited logits.
        points: number of residual points: inputs and outputs of blocks, and between their additions.
        values: number of all values of the stream in a forward pass, each of which was measured.
    """

    leak: float
    leak_before: float
    logit_difference: float
    points: int
    values: int


@dataclass(frozen=True)
class ProvenAnatomy:
    """An anatomy, its proof, and the layout of its parameters in one checkpoint."""

    anatomy: Anatomy
    proof: AblationProof
    layout: Layout

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` gives an equal object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: object) -> "ProvenAnatomy":
        """The proven anatomy of a `to_dict` result, also after JSON has turned tuples into lists.

        Raises:
            ValueError: anything else: an entry missing, unknown or of another type.
        """
        found: ProvenAnatomy = _made(cls, value)
        return found


def _made(kind: Any, value: Any) -> Any:
    """The value converted to its annotated type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = {entry.name for entry in fields(kind)}
        if not isinstance(value, Mapping) or value.keys() != names:
            raise ValueError(f"no {getattr(kind, '__name__', kind)}")
        return typing.cast(Any, kind)(**{name: _made(hints[name], value[name]) for name in names})
    if origin is types.UnionType:
        return None if value is None else _made(next(a for a in arguments if a is not types.NoneType), value)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_made(arguments[0], item) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {_made(arguments[0], key): _made(arguments[1], item) for key, item in value.items()}
    # A bool is an int to isinstance, but not here.
    if origin is None and type(value) is kind:
        return value
    raise ValueError(f"{value!r} is no {kind}")
