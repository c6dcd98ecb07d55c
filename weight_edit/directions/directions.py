"""Directions with their record, kept in one safetensors file."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from weight_edit.checkpoint.whole_file import save_whole
from weight_edit.directions.file import KEY, read_candidates, read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.tables.shown import Shown
from weight_edit.utils.arrays import as_float64
from weight_edit.utils.json import json_safe

_SAID = ("method", "layer", "position", "model")
"""The metadata keys that a short description shows."""


@dataclass(frozen=True)
class Directions(Shown):
    """Directions in a model's residual stream.

    Attributes:
        direction: orthonormal rows, (k, d_model) float32.
        tensors: more that edits need, by name, (d_model,) or (n, d_model) float32: "vector", what an addition adds;
            "baseline_mean" and "target_mean", the classes' means at the chosen place; and whatever the finder makes.
        candidates: what they were chosen from, unnormalised, (n_positions, n_layers, d_model) float32; None
            where the finder makes none.
        metadata: JSON values: method, layer, position, model, prompt sets, scores and so on.
    """

    direction: Tensor
    candidates: Tensor | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        known = [f"{key}={self.metadata[key]!r}" for key in _SAID if self.metadata.get(key) is not None]
        return f"Directions({', '.join(['{} x {}'.format(*self.direction.shape), *known])})"

    @property
    def d_model(self) -> int:
        """Width of the residual stream that the directions belong to."""
        return int(self.direction.shape[1])

    @property
    def rows(self) -> DirectionRows:
        """The directions, metadata and tensors as numpy arrays, for an edit."""
        kept = {name: as_float64(tensor).astype("float32") for name, tensor in self.tensors.items()}
        return DirectionRows(as_float64(self.direction).astype("float32"), dict(self.metadata), kept)

    def check_width(self, d_model: int) -> None:
        """Refuse directions of another model's width.

        Raises:
            UsageError: names both widths.
        """
        self.rows.check_width(d_model)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what is known of the directions, and how many there are."""
        return {**self.metadata, "count": int(self.direction.shape[0]), "d_model": self.d_model}

    def save(self, path: str | Path) -> None:
        """Write the file: whole or not at all, and the same bytes for the same content.

        Raises:
            UsageError: the folder does not exist or cannot be written, or `path` is no regular file.
        """
        path = Path(path)
        tensors = {name: tensor.float().contiguous() for name, tensor in self.tensors.items()}
        tensors["direction"] = self.direction.float().contiguous()
        if self.candidates is not None:
            tensors["candidates"] = self.candidates.float().contiguous()
        text = json.dumps(json_safe(self.metadata), sort_keys=True, allow_nan=False)
        data = to_bytes(tensors, metadata={KEY: text})
        save_whole(path, data)


def load_directions(path: str | Path, *, orthonormalize: bool = False) -> Directions:
    """Read directions, and the candidates where there are some, as torch tensors.

    Args:
        path, orthonormalize: as in `read_rows`, which makes the checks.

    Raises:
        UsageError: as `read_rows`; or `candidates` of another shape or no floating dtype.
    """
    found = read_rows(path, orthonormalize=orthonormalize)
    candidates = read_candidates(path, found.rows.shape[1])
    kept = None if candidates is None else torch.from_numpy(candidates)
    tensors = {name: torch.from_numpy(values) for name, values in found.tensors.items()}
    return Directions(torch.from_numpy(found.rows), kept, found.metadata, tensors)
