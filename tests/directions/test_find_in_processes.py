"""`find` in two processes: the same directions and choice as in one; one killed, and the search goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.several_processes import launch, ours, process_of
from weight_edit.directions.directions import load_directions

SETS = ("--target", "organism:refused", "--baseline", "organism:answered", "--n-train", "16", "--n-validation", "8")
FIND = ("find", "organism", *SETS, "--n-more", "0", "--max-kl", "5", "--quiet")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of directions that one process writes."""
    out = tmp_path_factory.mktemp("alone") / "d.safetensors"
    done = subprocess.run(
        [sys.executable, "-m", "weight_edit", *FIND, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def assert_same(found: Path, expected: Path) -> dict[str, Any]:
    """Check that two searches chose the same of the same; returns the first one's metadata."""
    mine, other = load_directions(found), load_directions(expected)
    torch.testing.assert_close(mine.direction, other.direction, rtol=0, atol=1e-6)
    assert mine.candidates is not None
    assert other.candidates is not None
    torch.testing.assert_close(mine.candidates, other.candidates, rtol=1e-6, atol=1e-5)
    assert [mine.metadata[name] for name in ("layer", "position")] == [
        other.metadata[name] for name in ("layer", "position")
    ]
    for ours_, theirs in zip(mine.metadata["scores"], other.metadata["scores"], strict=True):
        assert (ours_["rejected"] is None) == (theirs["rejected"] is None)
        assert ours_["bypass"] == pytest.approx(theirs["bypass"], abs=1e-4)
        assert ours_["kl"] == pytest.approx(theirs["kl"], abs=1e-5)
    metadata: dict[str, Any] = mine.metadata
    return metadata


def measured(out: Path) -> list[tuple[int | None, list[str]]]:
    """Which scores of which candidates a search's journal has, line by line."""
    lines = (out.parent / f"{out.name}.find" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    rows = [json.loads(line) for line in lines]
    return [(row.get("candidate"), sorted(row.get("values", row))) for row in rows]


def test_two_processes_find_what_one_finds_and_one_speaks(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.safetensors"
    launcher = launch("weight_edit", [*FIND, "--out", out, "--json"])
    said, err = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, err
    assert err == "" or not ours(err)
    document = json.loads(said)
    metadata = assert_same(out, alone)
    assert document["processes"] == metadata["processes"]
    assert metadata["processes"]["count"] == 2
    first, second = metadata["processes"]["prompts"]
    assert first + second > 100
    assert abs(first - second) < 0.3 * first
    assert "processes" not in load_directions(alone).metadata
    # One journal, as of one process.
    assert measured(out) == measured(alone)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are told apart by /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_one_is_killed_and_the_search_goes_on(alone: Path, tmp_path: Path, victim: int) -> None:
    out = tmp_path / "d.safetensors"
    scores = tmp_path / "d.safetensors.find" / "scores.jsonl"
    launcher = launch("weight_edit", [*FIND, "--out", out])
    until = time.monotonic() + 120
    while not (scores.exists() and scores.read_bytes().count(b"\n") >= 1):
        assert launcher.poll() is None, launcher.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.005)
    process = process_of(launcher, victim)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    said, err = launcher.communicate(timeout=60)
    assert launcher.returncode != 0
    assert not out.exists()
    assert said == ""
    (line,) = ours(err)
    assert "processes" in line
    assert "ended" in line
    assert line.endswith("d.safetensors.find; go on with --resume")
    kept = scores.read_bytes()
    assert kept.count(b"\n") >= 1
    # With as many processes or with one.
    again = launch("weight_edit", [*FIND, "--out", out, "--resume"], count=1 + victim)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    # What was measured is not measured again.
    assert scores.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert_same(out, alone)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("find", "organism", *SETS, "--out", "/no/such/folder/d.safetensors"), "there is no folder", 2),
        (("find", "organism", "--nonsense"), "no such option", 2),
        (("inspect", "organism"), "runs in one process", 2),
    ],
)
def test_an_error_is_said_once(arguments: tuple[str, ...], words: str, code: int) -> None:
    launcher = launch("weight_edit", arguments)
    said, err = launcher.communicate(timeout=120)
    assert launcher.returncode != 0
    assert said == ""
    (line,) = ours(err)
    assert words in line
    # The launcher's own report names each process's exit code.
    assert f"exitcode  : {code}" in err
