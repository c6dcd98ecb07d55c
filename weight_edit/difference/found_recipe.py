"""The edit that a verdict found, as a recipe: `run` bakes it on the base, or on any model of that width."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from weight_edit.checkpoint.whole_file import begins_with, write_whole
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_directions import packed_directions
from weight_edit.edits.projection import orthonormal_rows

MAIN = "main"
RECIPES = (".yaml", ".yml")
"""How a recipe's file ends."""

_KINDS = {"ablation": "ablate", "norm-preserving ablation (vectors)": "norm-preserving"}
_ROLES = ("attention", "mlp")


class Place:
    """One edited writer's place, strength and directions in the stream."""

    def __init__(self, role: str, layer: int | None, strength: float, rows: NDArray[np.float64]) -> None:
        self.role, self.layer, self.strength, self.rows = role, layer, strength, rows


def along_directions(
    operator: str, places: Sequence[Place], shared: NDArray[np.float64], layers: int
) -> dict[str, Any] | None:
    """The sections `directions` and `edit` of an ablation; None where no edit of ours is that.

    Args:
        operator: that of the writers.
        places: of the edited writers.
        shared: (k, d) the directions that they share; k is 0 where they do not.
        layers: of the model.
    """
    kind = _KINDS.get(operator)
    # As it will be written: the estimate of a reflection's strength may be a little above 2.
    if kind is None or not layers or any(not 0 < _round(place.strength) <= 2 for place in places):
        return None
    if any(place.role not in (*_ROLES, "embedding") for place in places):
        return None
    embedded = any(place.role == "embedding" for place in places)
    whole = {"embeddings": "both" if embedded else "skip"}
    if len(shared):
        step = _step(kind, places, layers)
        return {"directions": {MAIN: _packed(shared)}, "edit": {**whole, **step}}
    directions, steps = {}, []
    for number, place in enumerate(places):
        name = MAIN if number == 0 else f"{place.role}-{place.layer}-{number}"
        directions[name] = _packed(place.rows)
        steps.append({**_step(kind, [place], layers), "directions": name})
    return {"directions": directions, "edit": {**whole, **steps[0], "then": steps[1:]}}


def _step(kind: str, places: Sequence[Place], layers: int) -> dict[str, Any]:
    """One entry of an edit: a strength, or factors for each layer and the embedding."""
    factors: dict[str, list[float]] = {role: [0.0] * layers for role in _ROLES}
    embedding = 0.0
    for role in (*_ROLES, "embedding"):
        for layer in range(layers):
            found = [p.strength for p in places if p.role == role and p.layer == layer]
            if found and role != "embedding":
                factors[role][layer] = float(np.median(found))
        found = [p.strength for p in places if p.role == role and p.layer is None]
        if found:
            embedding = float(np.median(found))
    known = [value for role in _ROLES for value in factors[role]]
    if min(known) > 0 and np.ptp([*known, embedding or known[0]]) <= 0.06:
        return {"kind": kind, "strength": _round(float(np.median([*known, embedding or known[0]])))}
    kernel: dict[str, Any] = {role: [_round(value) for value in factors[role]] for role in _ROLES}
    return {"kind": kind, "strength": 1.0, "kernel": {**kernel, "embedding": _round(embedding)}}


def _round(value: float) -> float:
    """A strength without its estimate's last digits; whole ones are whole."""
    near = round(value, 4)
    return float(round(near)) if abs(near - round(near)) < 2e-3 else near


def at_a_layer(rows: NDArray[np.float64], layer: int) -> dict[str, Any]:
    """The sections of a reflection at a layer."""
    return {"directions": {MAIN: _packed(rows)}, "edit": {"kind": "reflect", "at": [layer]}}


def addition(vector: NDArray[np.float64], layer: int) -> dict[str, Any]:
    """The sections of an addition at a layer's input."""
    rows = orthonormal_rows(vector[None])
    entry = packed_directions(
        DirectionRows(rows.astype(np.float32), {"method": "diff"}, {"vector": vector.astype(np.float32)})
    )
    return {"directions": {MAIN: entry}, "edit": {"kind": "add", "at": [layer], "strength": 1.0}}


def erasure(left: NDArray[np.float64], right: NDArray[np.float64]) -> dict[str, Any]:
    """The sections of an eraser `I - L R^T` without a constant; both of shape (d, k)."""
    beside = {"left": left.T, "right": right.T, "mean": np.zeros(len(left))}
    tensors = {name: values.astype(np.float32) for name, values in beside.items()}
    facts = {"method": "diff", "layer": 0}
    rows = orthonormal_rows(right.T).astype(np.float32)
    entry = packed_directions(DirectionRows(rows, facts, tensors))
    return {"directions": {MAIN: entry}, "edit": {"kind": "erase", "options": {"enter": "embedding"}}}


def _packed(rows: NDArray[np.float64]) -> dict[str, Any]:
    return packed_directions(DirectionRows(orthonormal_rows(rows).astype(np.float32), {"method": "diff"}))


_FIRST = "# The edit that diff found.\n"


def save_recipe(path: Path, sections: Mapping[str, Any], model: str, said: str) -> None:
    """Write the recipe of an edit; raises `UsageError` where the file cannot be written."""
    content = {"title": f"{said}, as found by diff"[:200], "model": model, **sections}
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    write_whole(path, f"{_FIRST}#\n#   weight-edit run {path.name}\n{text}")


def is_found_recipe(path: Path) -> bool:
    """Whether a file is a recipe that was saved here."""
    return begins_with(path, _FIRST)
