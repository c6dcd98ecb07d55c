"""Strengths by layer: a kernel that falls off with the distance (p-e-w/heretic), or one number for each layer."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from weight_edit.utils.settings import Section

Factor = Annotated[float, Field(ge=0, le=2)]
"""A factor of an edit's strength."""

ROLES = {"attention": "attention", "mlp": "MLP"}
"""Kind of writer in the blocks -> its name in sentences."""


class Kernel(Section):
    """A strength that falls off linearly with the distance from one layer.

    `strength(l) = max + distance(l) / width * (min - max)` up to a distance of `width`, and 0 beyond.

    Attributes:
        max: at `position`.
        min: at the distance `width` from it.
        position: as a share of the last layer's number.
        width: how far it reaches, as a share of the last layer's number.
    """

    max: Factor = 1.0
    min: Factor = 0.0
    position: Annotated[float, Field(ge=0, le=1)] = 0.6
    width: Annotated[float, Field(gt=0, le=1)] = 0.5

    def at(self, layer: int, n_layers: int) -> float:
        """The strength at a layer, counted from 0."""
        last = max(1, n_layers - 1)
        distance = abs(layer / last - self.position)
        if distance > self.width + 1e-12:
            return 0.0
        return self.max + distance / self.width * (self.min - self.max)


def _form(value: Any) -> str | None:
    """By which of the two forms a value is to be read, so that an error is about that one alone."""
    if isinstance(value, list | tuple):
        return "<numbers>"
    return "<kernel>" if isinstance(value, Mapping | Kernel) else None


ByLayer = Annotated[
    Annotated[Kernel, Tag("<kernel>")] | Annotated[list[Factor], Tag("<numbers>")],
    Discriminator(
        _form,
        custom_error_type="by_layer",
        custom_error_message="write a kernel, such as {max: 1.2, width: 0.4}, or a list with a number for each layer",
    ),
]
"""A kernel, or a number for each layer."""


class Kernels(Section):
    """Factors of an edit's strength for each kind of writer; None leaves the strength as it is.

    Attributes:
        attention: of whatever mixes tokens: a kernel, or a number for each layer.
        mlp: of the others, experts included.
        embedding: of what the stream begins with.
    """

    attention: ByLayer | None = None
    mlp: ByLayer | None = None
    embedding: Factor | None = None

    @model_validator(mode="after")
    def _alike(self) -> "Kernels":
        counts = {len(each) for each in (self.attention, self.mlp) if isinstance(each, list)}
        if len(counts) > 1:
            raise ValueError(
                "'attention' and 'mlp' have numbers for unlike many layers: "
                f"{len(self.attention or [])} and {len(self.mlp or [])}"  # type: ignore[arg-type]
            )
        return self

    @model_serializer(mode="wrap")
    def _without_absent_embedding(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Manifests and records of runs say what earlier versions say and read.
        said: dict[str, Any] = handler(self)
        return {key: value for key, value in said.items() if key != "embedding" or value is not None}

    @property
    def layers(self) -> int | None:
        """How many layers there are numbers for; None where kernels say it for any number."""
        return next((len(each) for each in (self.attention, self.mlp) if isinstance(each, list)), None)

    def at(self, role: str, layer: int | None, n_layers: int) -> float:
        """The factor of a writer's strength.

        Args:
            role: of the writer.
            layer: its block's number; None in front of the blocks, where `embedding` counts.
            n_layers: of the model.
        """
        if layer is None:
            return 1.0 if self.embedding is None else self.embedding
        kernel = self.attention if role == "attention" else self.mlp
        if isinstance(kernel, list):
            return kernel[layer]
        return 1.0 if kernel is None else kernel.at(layer, n_layers)


def kernels_in_words(kernels: Mapping[str, Any]) -> str:
    """Factors by layer in a few words, from their entry in a manifest: dozens of numbers are no sentence."""
    parts = []
    for role, name in ROLES.items():
        factors = kernels.get(role)
        if isinstance(factors, list) and factors:
            parts.append(f"{name} {_span(factors)}")
    if not parts and kernels.get("embedding") is None:
        return "weaker by layer as its kernel says"
    if any(isinstance(kernels.get(role), Mapping) for role in ROLES):
        parts.append("others as their kernel says")
    if kernels.get("embedding") is not None:
        parts.append(f"embedding {kernels['embedding']:g}")
    return f"times {', '.join(parts)}"


def _span(factors: Sequence[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(factors), max(factors)))
    return low if low == high else f"{low} to {high} by layer"
