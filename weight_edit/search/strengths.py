"""How much each writer of the residual stream loses of the component along the directions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from weight_edit.edits.kernel import Kernels
from weight_edit.utils.arrays import Floats

LARGEST = 2.0
"""The largest strength: the component is reflected."""


@dataclass(frozen=True)
class Strengths:
    """A strength for each kind of writer and layer: 0 leaves it, 1 removes the component, 2 reflects it.

    Attributes:
        embedding: of what the stream begins with.
        attention: by layer, of whatever mixes tokens.
        mlp: by layer, of the others, experts included.

    Raises:
        ValueError: unlike many layers, or a strength outside of [0, 2].
    """

    embedding: float
    attention: tuple[float, ...]
    mlp: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.mlp):
            raise ValueError(f"{len(self.attention)} layers of attention and {len(self.mlp)} of MLP")
        if not all(0 <= each <= LARGEST for each in self.vector):
            raise ValueError(
                f"strengths from {min(self.vector):g} to {max(self.vector):g} are outside of [0, {LARGEST:g}]"
            )

    @property
    def n_layers(self) -> int:
        """The number of layers."""
        return len(self.attention)

    @property
    def vector(self) -> Floats:
        """(2 n_layers + 1,) float64: the embedding, then attention and MLP of each layer in turn."""
        return np.array(
            [self.embedding, *(each for pair in zip(self.attention, self.mlp, strict=True) for each in pair)]
        )

    @property
    def kernels(self) -> Kernels:
        """The strengths as an edit step's factors, to go with a strength of 1."""
        return Kernels(attention=list(self.attention), mlp=list(self.mlp), embedding=self.embedding)

    @classmethod
    def from_vector(cls, vector: Sequence[float] | Floats) -> "Strengths":
        """The strengths of a `vector`, brought into [0, 2]."""
        values = [float(each) for each in np.clip(np.asarray(vector, dtype=np.float64), 0.0, LARGEST)]
        return cls(values[0], tuple(values[1::2]), tuple(values[2::2]))

    @classmethod
    def flat(cls, n_layers: int, strength: float = 1.0, embedding: float | None = None) -> "Strengths":
        """The same strength everywhere; `embedding` may have another."""
        return cls(strength if embedding is None else embedding, (strength,) * n_layers, (strength,) * n_layers)

    @classmethod
    def of_kernels(cls, kernels: Kernels, n_layers: int) -> "Strengths":
        """The strengths that kernels give the layers of a model."""
        by_role = {
            role: tuple(kernels.at(role, layer, n_layers) for layer in range(n_layers)) for role in ("attention", "mlp")
        }
        return cls(kernels.at("embedding", None, n_layers), by_role["attention"], by_role["mlp"])
