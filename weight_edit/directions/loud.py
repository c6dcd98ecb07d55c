"""Loud coordinates: single entries of the stream that vary far more than all others, and what is done about them.

A mean difference weighs a coordinate by its scale, whatever it tells of the classes, so that a loud one owns the
direction, and every projection on it (Gemma 3; public repository abhishek9909/loud-channel-abliteration).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Done = Literal["nothing", "scaled", "masked"]

BOUND = 0.37
"""The ratio over `sqrt(d_model)` from which on a layer is loud.

Measured, at every layer but the first: at most .18 (Qwen2.5-Coder-0.5B, the embedded model) and .31 (SmolLM2-135M)
against .43 to 7.2 (Gemma 3 270M); this is the geometric middle of .31 and .43. Published, of whole models: .11 to .17
in four where a plain mean difference works, .46 to 1.73 in four where none does.
"""

LEAST = 10.0
"""The ratio below which no layer is loud: in a narrow stream chance alone exceeds `BOUND`.

Measured: at most 7.4 in models without a loud coordinate.
"""

SHARE = 1.0
"""Lambda of the scaled difference, as a share of the layer's median variance.

Chosen among .001, .1, 1, 10 and 100 on a planted direction in a stream 640 wide, with one deviation 100 times the
median's: the cosine to it is .58, .65, .73, .69, .65 with 24 prompts of a class (unscaled .56), and .56, .74, .87, .90,
.89 with 128 (unscaled .70).
"""


@dataclass(frozen=True, eq=False)
class Deviations:
    """How far prompts deviate from their class's mean, coordinate by coordinate.

    Standard deviations, since their squares are what the scaled difference divides by. They are taken within the
    classes, so that what tells the classes apart makes no coordinate loud, and pooled over positions, so that a layer
    has one answer.

    Attributes:
        values: (layers, d_model) float64.
    """

    values: Tensor

    @classmethod
    def of(cls, classes: list[Tensor]) -> "Deviations":
        """The deviations of activations (prompts, positions, layers, d_model), one tensor for each class."""
        total = sum(len(x) for x in classes)
        squares = torch.zeros(classes[0].shape[2:], dtype=torch.float64)
        for x in classes:
            # One layer at a time: the activations in float64 would be twice what is held already.
            for layer in range(x.shape[2]):
                there = x[:, :, layer].double()
                squares[layer] += (there - there.mean(dim=0)).square().sum(dim=0).mean(dim=0)
        return cls((squares / max(1, total - len(classes))).sqrt())

    @property
    def ratios(self) -> Tensor:
        """The loudest coordinate's deviation over the median one's, (layers,).

        Zero where less than half of the coordinates vary at all, or the stream is not finite.
        """
        loudest, median = self.values.max(dim=-1).values, self.values.median(dim=-1).values
        return torch.where(self._usable, loudest / median, torch.zeros_like(loudest))

    @property
    def loud(self) -> Tensor:
        """The layers whose loudest coordinate is above the bound, (layers,) bool."""
        return self.ratios >= threshold(self.values.shape[-1])

    @property
    def masks(self) -> Tensor:
        """The coordinates above the bound, (layers, d_model) bool: what varies so much, whichever class it is."""
        median = self.values.median(dim=-1, keepdim=True).values
        return (self.values >= threshold(self.values.shape[-1]) * median) & self._usable[:, None]

    @property
    def weights(self) -> Tensor:
        """`1 / (variance + lambda)`, (layers, d_model), with lambda the layer's median variance times `SHARE`."""
        variances = self.values.square()
        tempered = variances + SHARE * variances.median(dim=-1, keepdim=True).values
        return torch.where(self._usable[:, None], 1 / tempered, torch.ones_like(tempered))

    def at(self, layer: int, done: Done) -> dict[str, Any]:
        """A layer's loudest coordinate, its ratio, the bound on it and what was done, as JSON values."""
        return {
            "layer": layer,
            "coordinate": int(self.values[layer].argmax()),
            "ratio": float(self.ratios[layer]),
            "bound": threshold(self.values.shape[-1]),
            "done": done,
            "masked": self.masks[layer].nonzero().flatten().tolist() if done == "masked" else [],
        }

    @property
    def _usable(self) -> Tensor:
        return self.values.isfinite().all(dim=-1) & (self.values.median(dim=-1).values > 0)


def said(loud: Mapping[str, Any]) -> str:
    """A sentence on a layer's loudest coordinate, as `Deviations.at` has it, and what was done about it."""
    known = {
        "scaled": "so the difference was divided by the coordinates' variances (loud=keep leaves it as it is)",
        "masked": f"so {len(loud['masked'])} coordinates were left out",
        "nothing": "and may own the direction; mean-difference with the option loud=scale divides by the variances",
    }
    above = "above" if loud["ratio"] >= loud["bound"] else "below"
    return (
        f"coordinate {loud['coordinate']} of the stream at layer {loud['layer']} varies {loud['ratio']:.0f} times "
        f"as much as the median one ({above} the bound, {loud['bound']:.0f}), {known[loud['done']]}"
    )


def threshold(d_model: int) -> float:
    """The ratio from which on a coordinate is loud in a stream of this width.

    It grows with `sqrt(d_model)`: the more coordinates there are, the less of the whole one of them is.
    """
    return max(LEAST, BOUND * d_model**0.5)
