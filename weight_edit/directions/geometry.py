"""The stream of evaluated prompts before and after an edit: along the direction, across it, and by layer.

`geometry_document` makes what a run keeps as `geometry.json`:

    version     1
    layer       the block at whose input the direction was found
    position    from a prompt's end, negative; "all" for the mean over a prompt's tokens
    direction   the name of the directions in the recipe
    axes        {"along", "across"}: in a few words, what the two coordinates of the pictures are: the component along
                the direction, a unit vector (of several the line in their span along which the classes' means differ);
                and along the direction of largest variance within the sets, of the unedited model at the same place,
                among those orthogonal to all of the directions
    points      one for each prompt and model: {"class", "model", "prompt", "along", "across"}; `class` is the evaluated
                set ("refused", "answered", ...), `model` is "base" or "edited", `prompt` the number in that set, from 0
    classes     {"class", "model", "centre": [along, across], "covariance": [[., .], [., .]], "count"} of these points
    separation  {"layer", "base": {"value", "low", "high"}, "edited": {...}}: the area under the ROC curve of refused
                against answered prompts along each layer's own mean difference, which is taken from one half of the
                prompts and looked at on the other (`separation.mean_difference_area`), in each model by itself.
                `layer` is the block whose input is read; one more than there are is the last block's output. Empty
                where one of the two sets is missing or has fewer than four prompts
    control     {"what", "separation": [...]}: the same with both classes dealt at random, once for all layers, which is
                what chance gives
    components  {"layer", "class", "model", "mean", "low", "high", "length"}: the mean component along the direction at
                each layer, with its interval, and the mean length of the stream there

Where the stream could not be read, `missing` says why, beside `version` alone.

Both models are asked the same prompts. Neither model needs to be in memory while the other is: `side_of` reads one, and
keeps numbers of two dimensions alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weight_edit.directions.separation import line_of, mean_difference_area
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.evaluation.means import FEWEST, mean_comparison
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.activations import mean_residuals, residuals
from weight_edit.runtime.loading import Model
from weight_edit.runtime.points import Point

VERSION = 1

PROMPTS = 48
"""Prompts of each set that are looked at."""

ACROSS = "across it: largest variance within the sets, before"

_CONTROL = "the same prompts, dealt at random to two classes of these sizes, in the unedited model"
_FEWEST = 4
"""Prompts that each class needs for a separation by halves."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place where directions were found, and their line.

    Attributes:
        name: of the directions.
        layer, position: the place; a position of None is the mean over a prompt's tokens.
        line: unit vector, (d_model,) float64, see `line_of`.
        rows: orthonormal rows of all directions, (k, d_model) float64.
        note: what else is to be said of them, in a few words.
    """

    name: str
    layer: int
    position: int | None
    line: Tensor
    rows: Tensor
    note: str = ""

    @classmethod
    def of(cls, name: str, found: DirectionRows, note: str = "") -> "Place | None":
        """The place of directions; None where they do not say at which layer they were found."""
        layer, position = found.metadata.get("layer"), found.metadata.get("position")
        if not isinstance(layer, int):
            return None
        rows = torch.from_numpy(found.rows).double()
        return cls(name=name, layer=layer, position=position, line=line_of(found), rows=rows, note=note)

    @property
    def along(self) -> str:
        """What the first coordinate is, in a few words."""
        where = "mean over tokens" if self.position is None else f"token {self.position}"
        return f"along '{self.name}', block {self.layer}'s input, {where}{self.note and f'; {self.note}'}"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One model's part of the geometry.

    Attributes:
        across: unit vector orthogonal to the directions, (d_model,) float64.
        points: set -> both coordinates of each prompt, (prompts, 2) float64.
        separation: by layer, {"value", "low", "high"}.
        chance: the same of classes dealt at random.
        components: by layer and set, see the module.
    """

    across: Tensor
    points: Mapping[str, Tensor]
    separation: list[dict[str, float]]
    chance: list[dict[str, float]]
    components: list[dict[str, Any]]


def chosen_prompts(sets: Mapping[str, PromptSet | None]) -> dict[str, PromptSet]:
    """The prompts that are looked at: some of each set, its categories in proportion."""
    return {name: prompts.at_most(PROMPTS) for name, prompts in sets.items() if prompts is not None}


def side_of(
    model: Model,
    chat_format: ChatFormat,
    prompts: Mapping[str, PromptSet],
    place: Place,
    across: Tensor | None = None,
) -> Side:
    """One model's part: its stream at all layers is read once.

    Args:
        prompts: see `chosen_prompts`.
        across: that of the unedited model; None where this is the unedited one.

    Raises:
        UsageError: a prompt is shorter than the place reaches back, or memory runs out with a single one.
    """
    streams = {name: _stream(model, chat_format, some, place.position) for name, some in prompts.items()}
    at = {name: stream[:, place.layer].double() for name, stream in streams.items()}
    if across is None:
        across = _across(list(at.values()), place.rows)
    axes = torch.stack([place.line, across], dim=1)
    return Side(
        across=across,
        points={name: stream @ axes for name, stream in at.items()},
        separation=_separations(streams, shuffled=False),
        chance=_separations(streams, shuffled=True),
        components=_components(streams, place.line),
    )


def geometry_document(
    place: Place, sets: Mapping[str, PromptSet | None], prompts: Mapping[str, PromptSet], base: Side, edited: Side
) -> dict[str, Any]:
    """The content of `geometry.json`, see the module.

    Args:
        sets: the evaluated sets, by which prompts are numbered.
        prompts: those that were looked at.
    """
    sides = {"base": base, "edited": edited}
    numbers = {name: _numbers(sets[name], some) for name, some in prompts.items()}
    named = [(name, model, side.points[name]) for model, side in sides.items() for name in prompts]
    return {
        "version": VERSION,
        "layer": place.layer,
        "position": "all" if place.position is None else place.position,
        "direction": place.name,
        "axes": {"along": place.along, "across": ACROSS},
        "points": [
            {"class": name, "model": model, "prompt": number, "along": along, "across": across}
            for name, model, points in named
            for number, (along, across) in zip(numbers[name], points.tolist(), strict=True)
        ],
        "classes": [_class(name, model, points) for name, model, points in named],
        "separation": [
            {"layer": layer, "base": before, "edited": after}
            for layer, (before, after) in enumerate(zip(base.separation, edited.separation, strict=True))
        ],
        "control": {
            "what": _CONTROL,
            "separation": [{"layer": layer, **area} for layer, area in enumerate(base.chance)],
        },
        "components": [{"model": model, **each} for model, side in sides.items() for each in side.components],
    }


def _stream(model: Model, chat_format: ChatFormat, prompts: PromptSet, position: int | None) -> Tensor:
    """The stream at every block's input and the last one's output, (prompts, layers + 1, d_model) float32."""
    count = model.anatomy.n_layers
    points = [*(Point("resid_pre", layer) for layer in range(count)), Point("resid_post", count - 1)]
    sequences = [chat_format.encode(prompt) for prompt in prompts.prompts]
    if position is None:
        return mean_residuals(model, sequences, points)
    return residuals(model, sequences, points, [position])[:, 0]


def _across(classes: list[Tensor], rows: Tensor) -> Tensor:
    """The unit vector of largest variance within the classes that is orthogonal to the rows, (d_model,).

    Zeros where the classes have no variance, as with one prompt in each: there is no such direction then.
    """
    centred = torch.cat([x - x.mean(dim=0) for x in classes])
    centred = centred - centred @ rows.T @ rows
    sizes, lines = torch.linalg.svd(centred, full_matrices=False)[1:]
    if sizes[0] <= 1e-9 * max(float(x.norm()) for x in classes):
        return torch.zeros_like(lines[0])
    line = lines[0]
    # An axis has no sign of its own: its largest entry is positive.
    return line * torch.sign(line[line.abs().argmax()])


def _separations(streams: Mapping[str, Tensor], *, shuffled: bool) -> list[dict[str, float]]:
    """The separation of refused and answered prompts at each layer; empty where there are too few."""
    refused, answered = (streams.get(name) for name in ("refused", "answered"))
    if refused is None or answered is None or min(len(refused), len(answered)) < _FEWEST:
        return []
    if shuffled:
        every = torch.cat([refused, answered])
        every = every[np.random.default_rng(0).permutation(len(every))]
        refused, answered = every[: len(refused)], every[len(refused) :]
    return [
        mean_difference_area(refused[:, layer].double(), answered[:, layer].double()).to_dict()
        for layer in range(refused.shape[1])
    ]


def _components(streams: Mapping[str, Tensor], line: Tensor) -> list[dict[str, Any]]:
    found = []
    for name, stream in streams.items():
        along = stream.double() @ line
        lengths = stream.double().norm(dim=-1).mean(dim=0).tolist()
        if len(along) < FEWEST:
            continue
        for layer, length in enumerate(lengths):
            mean = mean_comparison(along[:, layer].tolist())
            ends = {"mean": mean.value, "low": mean.low, "high": mean.high}
            found.append({"layer": layer, "class": name, **ends, "length": length})
    return found


def _class(name: str, model: str, points: Tensor) -> dict[str, Any]:
    centred = points - points.mean(dim=0)
    return {
        "class": name,
        "model": model,
        "centre": points.mean(dim=0).tolist(),
        "covariance": (centred.T @ centred / max(1, len(points) - 1)).tolist(),
        "count": len(points),
    }


def _numbers(whole: PromptSet | None, some: PromptSet) -> list[int]:
    assert whole is not None
    numbers = {prompt: number for number, prompt in enumerate(whole.prompts)}
    return [numbers[prompt] for prompt in some.prompts]
