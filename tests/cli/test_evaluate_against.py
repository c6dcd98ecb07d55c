"""What is said beside a figure: the base's, the difference; the path that a next command needs; the proof's time."""

from pathlib import Path

import pytest


def test_the_base_is_shown_beside_the_edit(call, directions: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    baked = call("bake", "organism", "--directions", directions, "--out", tmp_path / "edited", "--json").json
    assert 0 < baked["preparing_seconds"] < baked["seconds"]
    args = ("evaluate", tmp_path / "edited", "--against", "organism", "--limit", 11, "--max-new-tokens", 8)
    sets = ("--refused", "organism:refused:test", "--answered", "organism:answered:test")
    shown = call(*args, *sets)
    assert shown.code == 0, shown.err
    row = next(line for line in shown.out.splitlines() if "refusal of refused requests" in line)
    assert row.count("[") == 3
    assert "organism" in shown.out
    assert "difference" in shown.out
    found = call(*args, *sets, "--json").json
    base, edited = (each["sets"]["refused"]["refusal"]["value"] for each in (found["base"], found))
    apart = found["differences"]["refused"]["refusal"]
    assert apart["value"] == pytest.approx(edited - base)
    assert apart["low"] <= apart["value"] <= apart["high"]
    assert apart["both"] + apart["base_only"] + apart["edited_only"] + apart["neither"] == 11
    assert "exact" in found["differences"]["answered"]
    # Without ordinary requests there is no divergence, and the rest all the same.
    alone = call(*args, *sets[:2], "--json").json
    assert alone["divergence"] is None
    assert alone["differences"]["refused"]["refusal"] == apart


def test_the_next_command_of_diff_has_the_path(call, directions: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "models").mkdir()
    one, other = tmp_path / "models/one", tmp_path / "models/other"
    assert call("bake", "organism", "--directions", directions, "--out", one, "--layers", "0").code == 0
    assert call("bake", one, "--directions", directions, "--out", other).code == 0
    shown = call("diff", one, other, "--save", tmp_path / "found.safetensors")
    assert shown.code == 0, shown.err
    following = next(line for line in shown.out.splitlines() if line.startswith("Next: "))
    assert f" bake {one} --directions {tmp_path / 'found.safetensors'} " in following
