"""Strengths that fall off with the distance from one layer (the kernel of p-e-w/heretic)."""

from typing import Annotated

from pydantic import Field

from weight_edit.utils.settings import Section


class Kernel(Section):
    """A strength that falls off linearly with the distance from one layer.

    `strength(l) = max + distance(l) / width * (min - max)` up to a distance of `width`, and 0 beyond.

    Attributes:
        max: at `position`.
        min: at the distance `width` from it.
        position: as a share of the last layer's number.
        width: how far it reaches, as a share of the last layer's number.
    """

    max: Annotated[float, Field(ge=0, le=2)] = 1.0
    min: Annotated[float, Field(ge=0, le=2)] = 0.0
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
    """A kernel for each kind of writer; None leaves the edit's strength as it is.

    Attributes:
        attention: of whatever mixes tokens.
        mlp: of the others, experts included.
    """

    attention: Kernel | None = None
    mlp: Kernel | None = None

    def at(self, role: str, layer: int | None, n_layers: int) -> float:
        """The factor of a writer's strength; 1 for embeddings, which have no layer."""
        kernel = self.attention if role == "attention" else self.mlp
        return 1.0 if kernel is None or layer is None else kernel.at(layer, n_layers)
