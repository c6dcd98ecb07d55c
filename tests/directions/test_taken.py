"""Another candidate of a find, taken by hand: its own direction, and nothing that was measured of the chosen one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from weight_edit.directions.directions import Directions, load_directions
from weight_edit.directions.taken import can_be_taken, take_candidate
from weight_edit.errors import UsageError

TABLE = torch.tensor([[[0.0, 0, 0], [3, 4, 0]], [[0, 0, 5], [1, 2, 2]]])
"""Candidates at two positions and two layers, one of which is none."""


def found(path: Path, direction: Any = ((0.6, 0.8, 0),), table: torch.Tensor | None = TABLE, **more: Any) -> Path:
    scores = [
        {"layer": layer, "position": position, "rejected": "KL too large" if layer else None}
        for position in (-2, -1)
        for layer in (0, 1)
    ]
    chosen = {"positions": [-2, -1], "layer": 1, "position": -2, "separation": {"accuracy": 1.0}, "control": {}}
    metadata = {"method": "m", "model": "organism", "scores": scores, "warnings": ["of the chosen"], **chosen, **more}
    tensors = {"vector": torch.tensor([3.0, 4, 0]), "baseline_mean": torch.ones(3)}
    Directions(torch.tensor(direction), table, metadata, tensors).save(path)
    return path


def test_another_candidate_is_a_file_of_its_own(tmp_path: Path) -> None:
    path, out = found(tmp_path / "find.safetensors"), tmp_path / "taken.safetensors"
    assert can_be_taken(path)
    take_candidate(path, 1, -1, out)
    taken = load_directions(out)
    assert np.allclose(taken.direction, torch.tensor([[1, 2, 2]]) / 3)
    assert taken.tensors["vector"].tolist() == [1, 2, 2]
    assert (taken.metadata["layer"], taken.metadata["position"], taken.metadata["model"]) == (1, -1, "organism")
    # Of the chosen one alone.
    assert set(taken.tensors) == {"vector"}
    assert not {"separation", "control"} & set(taken.metadata)
    assert taken.metadata["missed"] == "KL too large"
    (warning,) = taken.metadata["warnings"]
    assert "chose layer 1, position -2" in warning
    take_candidate(path, 0, -1, out)
    assert load_directions(out).metadata["best_effort"] is False


@pytest.mark.parametrize(("layer", "position"), [(0, -2), (2, -1), (-1, -1), (1, -3), (1, None)])
def test_what_is_no_candidate_is_refused(tmp_path: Path, layer: int, position: int | None) -> None:
    path = found(tmp_path / "find.safetensors")
    with pytest.raises(UsageError, match="candidate"):
        take_candidate(path, layer, position, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"table": None},
        {"direction": ((0.0, 0, 1),)},
        {"direction": ((0.6, 0.8, 0), (0, 0, 1))},
        {"positions": None},
        {"layer": 7},
    ],
    ids=["no table", "another direction", "two directions", "no positions", "no such layer"],
)
def test_candidates_that_are_no_directions_by_themselves_are_not_taken(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = found(tmp_path / "find.safetensors", **changed)
    assert not can_be_taken(path)
    with pytest.raises(UsageError, match="by themselves"):
        take_candidate(path, 1, -1, tmp_path / "out")


def test_what_is_no_directions_file_has_no_candidates(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    assert not can_be_taken(tmp_path / "x")
    assert not can_be_taken(tmp_path / "none")
