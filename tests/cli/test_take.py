"""The verb `take`: what it prints, what it refuses, and the file it leaves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from weight_edit.directions.file import read_rows


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """A directions file with candidates at two layers."""
    table = np.eye(2, dtype=np.float32)[None]
    scores = [{"layer": 0, "position": -1}, {"layer": 1, "position": -1, "rejected": "KL 0.2 above 0.1"}]
    metadata = {"positions": [-1], "layer": 0, "position": -1, "model": "organism", "scores": scores}
    path = tmp_path / "d.safetensors"
    save_file({"direction": table[0, :1], "candidates": table}, path, metadata={"weight_edit": json.dumps(metadata)})
    return path


def test_a_candidate_is_taken_and_what_is_to_be_known_of_it_is_said(
    call: Callable[..., Any], found: Path, tmp_path: Path
) -> None:
    out = tmp_path / "other.safetensors"
    shown = call("take", found, "--layer", "1", "--position", "-1", "--out", out)
    assert (shown.code, shown.err) == (0, "")
    said = " ".join(shown.out.split())
    assert "layer 1, position -1, 2 wide" in said
    assert "the find chose layer 0, position -1; it misses a bound: KL 0.2 above 0.1" in said
    assert "weight-edit bake organism --directions" in said
    assert read_rows(out).rows.tolist() == [[0, 1]]
    documented = call("take", found, "--layer", "1", "--out", out, "--overwrite", "--json").json
    assert (documented["path"], documented["layer"], documented["missed"]) == (str(out), 1, "KL 0.2 above 0.1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--layer", "2"), "there are layers 0 to 1"),
        (("--layer", "1", "--position", "-4"), "there are positions -1"),
        (("--layer", "one"), "a number is wanted"),
        (("--position", "-1"), "missing option '--layer'"),
    ],
)
def test_a_wrong_place_is_one_line(
    call: Callable[..., Any], found: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    result = call("take", found, *options, "--out", tmp_path / "o")
    assert result.code == 2
    assert said in result.err
    assert len(result.err.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_what_find_did_not_write_is_refused(call: Callable[..., Any], directions: Path, tmp_path: Path) -> None:
    result = call("take", directions, "--layer", "1", "--out", tmp_path / "o")
    assert result.code == 2
    assert "only a file that `find` wrote has them" in result.err
    assert "make one with `find`" in call("take", tmp_path / "none", "--layer", "1", "--out", tmp_path / "o").err
