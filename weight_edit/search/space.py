"""What a search can draw: a place for the directions, kernels of strengths, the embedding; and published settings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from weight_edit.edits.kernel import Kernel, Kernels
from weight_edit.search.places import Finding, Places
from weight_edit.search.point import Point
from weight_edit.search.strengths import Strengths

Value: TypeAlias = bool | int | float | str | None
"""A drawn value; JSON has all of them."""

ROLES = ("attention", "mlp")
"""The writers that have kernels."""

DIGITS = 3
"""Digits behind the point that drawn numbers have: a recipe can be read, and machines draw the same."""


@dataclass(frozen=True)
class Range:
    """Real numbers, all alike likely at first.

    Attributes:
        low, high: the bounds, both included.
    """

    low: float
    high: float

    def holds(self, value: Value) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class OneOf:
    """Values without an order.

    Attributes:
        options: each of them once.
    """

    options: tuple[Value, ...]

    def holds(self, value: Value) -> bool:
        """Whether a value is one of these."""
        return value in self.options


@dataclass(frozen=True)
class Whole:
    """Whole numbers, all alike likely at first.

    Attributes:
        low, high: the bounds, both included.
    """

    low: int
    high: int

    def holds(self, value: Value) -> bool:
        """Whether a value is one of these."""
        return isinstance(value, int) and self.low <= value <= self.high


Parameter: TypeAlias = Range | Whole | OneOf


@dataclass(frozen=True)
class KernelRanges:
    """What is drawn of a kernel.

    Attributes:
        max: the largest strength.
        position: the layer that has it, as a share of the last layer's number.
        min: the strength at the distance `width`, as a share of the largest: a sampler wants ranges that stay.
        width: how far the kernel reaches, as a share of the last layer's number; at least one layer.
    """

    max: tuple[float, float] = (0.0, 1.5)
    position: tuple[float, float] = (0.0, 1.0)
    min: tuple[float, float] = (0.0, 1.0)
    width: tuple[float, float] = (0.0, 1.0)


HERETIC = KernelRanges(max=(0.8, 1.5), position=(0.6, 1.0), width=(0.0, 0.6))
"""The ranges of p-e-w/heretic.

The plain full ablation lies outside of them, and so does all that does little damage.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Space:
    """All edits that a sampler can draw.

    The default ranges hold those of p-e-w/heretic (`HERETIC`) and more: from no edit on, since the front is to reach
    to little damage, too; wide enough for the plain full ablation; and everywhere in the model, since in a small one
    refusal does not sit where it does in a large one.

    Attributes:
        places: the directions that can be taken.
        layers: the real-valued layer at whose input the direction is; None is from .4 to .9 of the last layer, counted
            from what the layer puts out (p-e-w/heretic), widened to what the finds chose.
        attention, mlp: kernels of strengths.
        embedding: strengths of the embedding: it is edited or not.
        keep_norms: whether vectors of weights keep their lengths. Such an edit changes parameters and shares no batch
            with others, which takes longer, so it is not drawn unless both are given.
        directions: at most so many places, whose directions are removed together.
        embeddings: "both" edits a tied unembedding with its embedding, "untie" writes an unembedding of its own.
    """

    places: Places
    layers: tuple[float, float] | None = None
    attention: KernelRanges = field(default_factory=KernelRanges)
    mlp: KernelRanges = field(default_factory=KernelRanges)
    embedding: tuple[float, ...] = (0.0, 1.0)
    keep_norms: tuple[bool, ...] = (False,)
    directions: int = 1
    embeddings: str = "both"

    @property
    def n_layers(self) -> int:
        """The number of the model's layers."""
        return self.places.n_layers

    @property
    def last(self) -> int:
        """The last layer's number, which shares are of; at least 1."""
        return max(1, self.n_layers - 1)

    @cached_property
    def reach(self) -> tuple[float, float]:
        """The least and the greatest layer that is drawn."""
        if self.layers is not None:
            return self.layers
        chosen = [each.choice.layer for each in self.places.findings if each.choice.layer is not None]
        low, high = (min(share * self.last + 1, self.n_layers - 1) for share in (0.4, 0.9))
        return min([low, *chosen]), max([high, *chosen])

    def kernel_bounds(self, role: str) -> dict[str, tuple[float, float]]:
        """The bounds of a kernel, which reaches one layer at least."""
        bounds = asdict(self.attention if role == "attention" else self.mlp)
        least = 1 / self.last
        return bounds | {"width": tuple(max(each, least) for each in bounds["width"])}

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """What is drawn, by name, in order; what has one value only is not drawn."""
        findings = self.places.findings
        found = [each for finding in findings for each in finding.found]
        every: dict[str, Parameter] = {
            "finder": OneOf(tuple(each.name for each in findings)),
            "position": OneOf(tuple(dict.fromkeys(each.position for each in found))),
            "rows": Whole(1, max(len(each.rows) for each in found)),
            "directions": Whole(1, self.directions),
        }
        if any(each.layer is not None for each in found):
            every |= {name: Range(*self.reach) for name in _layer_names(self.directions)}
        for role in ROLES:
            every |= {f"{role}.{name}": Range(*pair) for name, pair in self.kernel_bounds(role).items()}
        every |= {"embedding": OneOf(self.embedding), "keep_norms": OneOf(self.keep_norms)}
        return {name: each for name, each in every.items() if not _single(each)}

    def point(self, params: Mapping[str, Value], origin: str = "sampler") -> Point:
        """The edit of drawn values.

        Args:
            params: of every parameter; of what is not drawn only what differs from the space's own.

        Raises:
            KeyError: a value is missing.
        """

        def value(name: str, otherwise: Any) -> Any:
            return params[name] if name in self.parameters else params.get(name, otherwise)

        finding = self.places.by_name[value("finder", self.places.findings[0].name)]
        position = value("position", finding.choice.position)
        names = _layer_names(value("directions", 1))
        layers = [value(name, float(finding.choice.layer or 0)) for name in names]
        kernels = {}
        for role in ROLES:
            drawn = {name: value(f"{role}.{name}", low) for name, (low, _) in self.kernel_bounds(role).items()}
            kernels[role] = Kernel(**{**drawn, "min": drawn["min"] * drawn["max"]})
        factors = Kernels(**kernels, embedding=value("embedding", self.embedding[0]))
        return Point(
            rows=self.places.rows(finding.name, [(position, layer) for layer in layers], value("rows", None)),
            strengths=Strengths.of_kernels(factors, self.n_layers),
            keep_norms=value("keep_norms", self.keep_norms[0]),
            embeddings=self.embeddings,
            origin=origin,
            facts={"finder": finding.name, "position": position, "layers": layers, "params": dict(params)},
        )

    def holds(self, params: Mapping[str, Value]) -> bool:
        """Whether these values, and no others, can be drawn."""
        known = self.parameters
        return params.keys() == known.keys() and all(each.holds(params[name]) for name, each in known.items())

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same space of them."""
        return {
            "places": self.places.to_dict(),
            "layers": self.layers,
            "attention": asdict(self.attention),
            "mlp": asdict(self.mlp),
            "embedding": list(self.embedding),
            "keep_norms": list(self.keep_norms),
            "directions": self.directions,
            "embeddings": self.embeddings,
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Space":
        """The space that `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: a malformed entry.
        """

        def ranges(name: str) -> KernelRanges:
            return KernelRanges(**{key: tuple(pair) for key, pair in entry[name].items()})

        return cls(
            places=Places.from_dict(entry["places"]),
            layers=None if entry["layers"] is None else tuple(entry["layers"]),
            attention=ranges("attention"),
            mlp=ranges("mlp"),
            embedding=tuple(entry["embedding"]),
            keep_norms=tuple(entry["keep_norms"]),
            directions=int(entry["directions"]),
            embeddings=str(entry["embeddings"]),
        )


def published(space: Space) -> list[Point]:
    """The first generation: settings that tools and papers have published, in the model's own places.

    First comes the full ablation of the direction that the first find chose, in every writer (arXiv 2406.11717). Others
    leave the embedding as it is, as public tools do: at strength 1 (jim-plus/llm-abliteration), with the vectors'
    lengths kept, and weaker and stronger throughout (1.5: mlabonne/gemma-3-27b-it-abliterated); kernels of
    p-e-w/heretic, from the middle of its ranges and as published for gemma-3-1b-it; a kernel as described for
    mlabonne/gemma-3-4b-it-abliterated. Last come full ablations of what other finders chose. Layers are shares of the
    last layer here too, and every tool's direction is one of this model's.

    Each has its name in `origin`. Equal ones are given once.
    """
    first, *others = space.places.findings
    middle: dict[str, Value] = {"layer": round(min(0.65 * space.last + 1, space.last), DIGITS)}
    bare: dict[str, Value] = {}
    everywhere: dict[str, Value] = {"embedding": 1.0}
    settings: list[tuple[str, Finding, Kernel, dict[str, Value]]] = [
        ("full ablation", first, _flat(1.0), everywhere),
        ("without embedding", first, _flat(1.0), bare),
        ("norms kept", first, _flat(1.0), {"keep_norms": True}),
        *((f"strength {strength:g}", first, _flat(strength), bare) for strength in (0.5, 0.75, 1.25, 1.5)),
        ("heretic, middle", first, Kernel(max=1.15, min=0.575, position=0.8, width=0.4), middle),
        ("heretic, gemma-3-1b", first, Kernel(max=1.47, min=1.3, position=0.693, width=0.522), bare),
        ("kernel, gemma-3-4b", first, Kernel(max=0.55, min=0.05, position=0.545, width=0.333), bare),
        *((f"full ablation, {each.name}", each, _flat(1.0), everywhere) for each in others),
    ]
    second = {"heretic, gemma-3-1b": Kernel(max=1.35, min=0.75, position=0.702, width=0.422)}
    points: dict[str, Point] = {}
    for name, finding, kernel, more in settings:
        params = _given(space, finding, {"attention": kernel, "mlp": second.get(name, kernel)}, more)
        point = space.point(params, f"published: {name}")
        points.setdefault(point.digest, point)
    return list(points.values())


def _given(
    space: Space, finding: Finding, kernels: Mapping[str, Kernel], more: Mapping[str, Value]
) -> dict[str, Value]:
    """Values for all that is drawn, and for what is not where they differ from the space's own."""
    choice = finding.choice
    layer = float(choice.layer or 0)
    given: dict[str, Value] = {
        "finder": finding.name,
        "position": choice.position,
        "rows": len(choice.rows),
        "directions": 1,
        **dict.fromkeys(_layer_names(space.directions), layer),
        "embedding": 0.0,
        "keep_norms": False,
    }
    for role, kernel in kernels.items():
        share = round(kernel.min / kernel.max, DIGITS)
        given |= {f"{role}.max": kernel.max, f"{role}.position": kernel.position}
        given |= {f"{role}.min": share, f"{role}.width": max(kernel.width, 1 / space.last)}
    given |= more
    own: dict[str, Value] = {"embedding": space.embedding[0], "keep_norms": space.keep_norms[0]}
    own |= {"finder": space.places.findings[0].name}
    for role in ROLES:
        own |= {f"{role}.{name}": low for name, (low, _) in space.kernel_bounds(role).items()}
    known = space.parameters
    return {name: value for name, value in given.items() if name in known or (name in own and own[name] != value)}


def _flat(strength: float) -> Kernel:
    return Kernel(max=strength, min=strength, position=0.5, width=1.0)


def _layer_names(count: int) -> list[str]:
    return ["layer", *(f"layer {number}" for number in range(2, count + 1))]


def _single(parameter: Parameter) -> bool:
    return len(parameter.options) == 1 if isinstance(parameter, OneOf) else parameter.low == parameter.high
