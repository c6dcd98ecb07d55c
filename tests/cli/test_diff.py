"""`diff` on the command line: what a model was edited with, and exit codes."""

import shutil
from pathlib import Path

import pytest

from weight_edit.organism.embedded import folder


def test_diff_tells_what_a_model_was_edited_with(call, directions: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "found.safetensors"
    assert call("bake", "organism", "--directions", directions, "--out", out, "--strength", "0.5").code == 0
    found = call("diff", "organism", out, "--save", file, "--json")
    assert found.code == 0, found.err
    assert found.json["strength"] == pytest.approx(0.5, abs=1e-3)
    assert len(found.json["shared_directions"]) == 1
    assert call("bake", "organism", "--directions", file, "--out", tmp_path / "again").code == 0
    again = call("diff", "organism", out, "--save", file)
    assert again.code == 2
    assert "--overwrite" in again.err
    tables = call("diff", "organism", out, "--exit-code")
    assert tables.code == 4
    assert "44 the same, 13 differ" in tables.out
    assert "0-5" in tables.out
    assert "down_proj" in tables.out
    every = call("diff", "organism", out, "--all").out
    assert every.count("1.000") > tables.out.count("1.000")


def test_diff_of_equals_has_nothing_to_save(call, tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "copy")
    same = call("diff", "organism", tmp_path / "copy", "--exit-code")
    assert same.code == 0
    assert "No difference" in same.out
    none = call("diff", "organism", tmp_path / "copy", "--save", tmp_path / "none.safetensors")
    assert none.code == 2
    assert "share no direction" in none.err
    assert not (tmp_path / "none.safetensors").exists()
