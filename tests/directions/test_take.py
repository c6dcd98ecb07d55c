"""Another candidate of a find, taken by hand: its own direction, and nothing that was measured of the chosen one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from weight_edit.directions.directions import Directions, load_directions
from weight_edit.directions.take import can_be_taken, take_candidate
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
    rows = take_candidate(path, out, layer=1, position=-1)
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
    # What is returned is what was written.
    assert np.array_equal(rows.rows, taken.direction)
    assert rows.metadata == taken.metadata
    with pytest.raises(UsageError, match="exists"):
        take_candidate(path, out, layer=0, position=-1)
    take_candidate(path, out, layer=0, position=-1, overwrite=True)
    assert load_directions(out).metadata["best_effort"] is False


@pytest.mark.parametrize(
    ("layer", "position", "said"),
    [
        (0, -2, "the candidate at layer 0, position -2 is no direction"),
        (2, -1, "no candidate at layer 2: there are layers 0 to 1"),
        (-1, -1, "no candidate at layer -1: there are"),
        (1, -3, "no candidate at layer 1, position -3: there are positions -2, -1"),
        (1, None, "candidates at several positions; say which, of -2, -1"),
    ],
)
def test_what_is_no_candidate_is_refused(tmp_path: Path, layer: int, position: int | None, said: str) -> None:
    path = found(tmp_path / "find.safetensors")
    with pytest.raises(UsageError, match=said):
        take_candidate(path, tmp_path / "out", layer=layer, position=position)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("only", [-1, None])
def test_the_only_position_need_not_be_named(tmp_path: Path, only: int | None) -> None:
    path = found(tmp_path / "find.safetensors", table=TABLE[:1], positions=[only], position=only)
    assert take_candidate(path, tmp_path / "out", layer=1).metadata["position"] == only


def test_the_find_keeps_its_candidates_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    path, foreign = found(tmp_path / "find.safetensors"), tmp_path / "thesis.txt"
    before = path.read_bytes()
    (tmp_path / "same").symlink_to(path)
    foreign.write_text("all of it")
    for out, said in ((path, "would lose its other candidates"), (tmp_path / "same", "lose"), (foreign, "not ours")):
        with pytest.raises(UsageError, match=said):
            take_candidate(path, out, layer=1, position=-1, overwrite=True)
    assert path.read_bytes() == before
    assert foreign.read_text() == "all of it"


@pytest.mark.parametrize(
    "changed",
    [
        {"direction": ((0.0, 0, 1),)},
        {"direction": ((0.6, 0.8, 0), (0, 0, 1))},
        {"positions": None},
        {"layer": 7},
    ],
    ids=["another direction", "two directions", "no positions", "no such layer"],
)
def test_candidates_that_are_no_directions_by_themselves_are_not_taken(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = found(tmp_path / "find.safetensors", **changed)
    assert not can_be_taken(path)
    with pytest.raises(UsageError, match="by themselves"):
        take_candidate(path, tmp_path / "out", layer=1, position=-1)


def test_a_file_without_candidates_is_told_from_others(tmp_path: Path) -> None:
    path = found(tmp_path / "find.safetensors", table=None)
    assert not can_be_taken(path)
    with pytest.raises(UsageError, match="has no candidates beside its direction"):
        take_candidate(path, tmp_path / "out", layer=1, position=-1)


def test_what_is_no_directions_file_has_no_candidates(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    assert not can_be_taken(tmp_path / "x")
    assert not can_be_taken(tmp_path / "none")
