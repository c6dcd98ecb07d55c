"""Strengths by layer: a kernel that falls off with the distance (p-e-w/heretic), or one number for each layer."""

from typing import Annotated

from pydantic import Field, model_validator

from weight_edit.utils.settings import Section

Factor = Annotated[float, Field(ge=0, le=2)]
"""A factor of an edit's strength."""


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


class Kernels(Section):
    """Factors of an edit's strength for each kind of writer; None leaves the strength as it is.

    Attributes:
        attention: of whatever mixes tokens: a kernel, or a number for each layer.
        mlp: of the others, experts included.
        embedding: of what the stream begins with.
    """

    attention: Kernel | list[Factor] | None = None
    mlp: Kernel | list[Factor] | None = None
    embedding: Factor | None = None

    @model_validator(mode="after")
    def _alike(self) -> "Kernels":
        counts = {len(each) for each in (self.attention, self.mlp) if isinstance(each, list)}
        if len(counts) > 1:
            raise ValueError("'attention' and 'mlp' have numbers for unlike many layers")
        return self

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
