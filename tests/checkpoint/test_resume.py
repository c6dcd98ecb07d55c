"""A bake that is interrupted, however, leaves no half-written output; `--resume` ends it as if nothing had happened."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers.checkpoint_samples import content, data_start, flip
from tests.helpers.families import save_family
from weight_edit import bake
from weight_edit.checkpoint.rewrite.attempt import Attempt
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError

SLOW = """
import sys, threading, time
from weight_edit.checkpoint.rewrite.attempt import Attempt
from weight_edit.checkpoint.source.reading import Files
from weight_edit.cli import main

after = int(sys.argv.pop(1))
note, file = Attempt.note, Files.read
tell, told = threading.Lock(), []

def telling(finished):
    with tell:
        if finished not in told:
            told.append(finished)
            print(finished, flush=True)

def noting(self, name, record, losses):
    note(self, name, record, losses)
    telling(self._noted)

def reading(self, *which):
    if not told:
        telling(0)
    time.sleep(3 if told[-1] == after else 0.05)
    file(self, *which)

Attempt.note, Files.read = noting, reading
main()
"""
"""The command, slowed down, telling how many files it has finished.

It tells none when the first is being read, not when the attempt begins: a signal between the making of its folder and
the block that removes it would leave an empty one. When it has finished as many as asked, it gives the signal time.
"""


@dataclass(frozen=True)
class Job:
    """A bake and what it gives when nobody interrupts it."""

    base: Path
    directions: Path
    whole: dict[str, bytes]

    def arguments(self, out: Path) -> list[str]:
        return ["bake", str(self.base), "--directions", str(self.directions), "--out", str(out)]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    root = tmp_path_factory.mktemp("resume")
    base = save_family("llama", root / "base", max_shard_size="20KB")
    width = Checkpoint.open(base).tensors["model.norm.weight"].shape[0]
    row = np.random.default_rng(0).standard_normal((1, width))
    save_file({"direction": (row / np.linalg.norm(row)).astype(np.float32)}, root / "d.safetensors")
    bake(base, root / "d.safetensors", root / "whole")
    assert len(Checkpoint.open(base).shards) >= 5
    return Job(base, root / "d.safetensors", content(root / "whole"))


def run(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "weight_edit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)


def interrupted(job: Job, out: Path, after: int, number: signal.Signals) -> tuple[int, str]:
    """Send the slow bake a signal when it has finished `after` files; its exit code and what it says."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", SLOW, str(after), *job.arguments(out), "--quiet"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == after:
                break
        assert not out.exists()
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert not out.exists()
    return process.returncode, said


def resumed(job: Job, out: Path) -> dict[str, Any]:
    """Go on; what it reports. Checks that all is as if nothing had happened."""
    ended = run([*job.arguments(out), "--resume", "--json"])
    assert ended.returncode == 0, ended.stderr
    assert content(out) == job.whole
    assert os.listdir(out.parent) == [out.name]  # noqa: PTH208
    return json.loads(ended.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_bake_is_gone_on_with(tmp_path, job, after):
    code, _ = interrupted(job, tmp_path / "out", after, signal.SIGKILL)
    assert code == -signal.SIGKILL
    found = resumed(job, tmp_path / "out")
    assert (found["bytes_kept"] > 0) == (after > 0)
    assert found["bytes_kept"] + found["bytes_copied"] + found["bytes_edited"] == found["bytes_total"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_bake_keeps_what_is_finished_and_says_no_more_than_a_line(tmp_path, job, number, code):
    returned, said = interrupted(job, tmp_path / "out", 2, number)
    assert returned == code
    assert len(said.splitlines()) <= 1
    if number == signal.SIGINT:
        assert "interrupted" in said
        assert "--resume" in said
    assert resumed(job, tmp_path / "out")["bytes_kept"] > 0


@pytest.mark.slow
def test_a_bake_stopped_before_any_file_was_finished_leaves_nothing(tmp_path, job):
    interrupted(job, tmp_path / "out", 0, signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> None:
    """Let a bake of this process fail when it has finished some files."""
    note = Attempt.note

    def noting(self: Attempt, *finished: Any) -> None:
        note(self, *finished)
        if self._noted == count:
            raise error

    monkeypatch.setattr(Attempt, "note", noting)


def stopped(job: Job, out: Path, error: BaseException | None = None, **options: Any) -> None:
    """A bake in this process, stopped after two files, by Ctrl-C if not by an error."""
    error = error or KeyboardInterrupt()
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2, error)
        with pytest.raises(type(error)):
            bake(job.base, job.directions, out, **options)


@pytest.mark.parametrize("error", [UsageError("no"), OSError(5, "broken"), MemoryError(), ValueError()], ids=repr)
def test_an_error_leaves_nothing_even_if_files_were_finished(tmp_path, job, error):
    stopped(job, tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_stopped_twice_and_gone_on_with(tmp_path, job):
    stopped(job, tmp_path / "out")
    first = {path.name for path in next(tmp_path.glob(".out.partial-*/files")).iterdir()}
    stopped(job, tmp_path / "out", resume=True)
    second = {path.name for path in next(tmp_path.glob(".out.partial-*/files")).iterdir()}
    assert first < second
    result = bake(job.base, job.directions, tmp_path / "out", resume=True)
    assert result.bytes_kept > 0
    assert content(tmp_path / "out") == job.whole


def damage(kind: str) -> Callable[[Path], None]:
    """Something that happens to the largest finished file between the two bakes."""

    def happen(file: Path) -> None:
        if kind == "flipped":
            flip(file, file.stat().st_size - 1)
        elif kind == "cut":
            file.write_bytes(file.read_bytes()[:-1])
        else:
            file.unlink()

    return happen


@pytest.mark.parametrize("kind", ["flipped", "cut", "missing"])
def test_a_finished_file_that_was_damaged_is_written_again(tmp_path, job, kind):
    stopped(job, tmp_path / "out")
    journal = next(tmp_path.glob(".out.partial-*/journal")).read_text().splitlines()
    noted = [json.loads(line)["file"] for line in journal[1:]]
    files = next(tmp_path.glob(".out.partial-*/files"))
    damage(kind)(files / noted[0])
    result = bake(job.base, job.directions, tmp_path / "out", resume=True)
    assert result.bytes_kept == sum(len(job.whole[name]) for name in noted[1:])
    assert content(tmp_path / "out") == job.whole


@pytest.mark.parametrize("change", ["strength", "embeddings", "directions", "source"])
def test_another_job_starts_anew(tmp_path, job, change):
    base = shutil.copytree(job.base, tmp_path / "base")
    own = Job(base, job.directions, {})
    (tmp_path / "work").mkdir()
    stopped(own, tmp_path / "work" / "out")
    options: dict[str, Any] = {}
    directions = job.directions
    if change == "strength":
        options["strength"] = 0.5
    elif change == "embeddings":
        options["embeddings"] = "skip"
    elif change == "directions":
        width = Checkpoint.open(base).tensors["model.norm.weight"].shape[0]
        directions = tmp_path / "other.safetensors"
        save_file({"direction": np.eye(1, width, dtype=np.float32)}, directions)
    else:
        shard = base / Checkpoint.open(base).tensors["model.norm.weight"].shard
        flip(shard, data_start(shard))
    result = bake(base, directions, tmp_path / "work" / "out", resume=True, **options)
    assert result.bytes_kept == 0
    bake(base, directions, tmp_path / "fresh", **options)
    # The manifests name the same source, which is in one place.
    assert content(tmp_path / "work" / "out") == content(tmp_path / "fresh")
    assert os.listdir(tmp_path / "work") == ["out"]  # noqa: PTH208


def test_without_resume_earlier_attempts_go(tmp_path, job):
    stopped(job, tmp_path / "out")
    result = bake(job.base, job.directions, tmp_path / "out")
    assert result.bytes_kept == 0
    assert content(tmp_path) == {f"out/{name}": data for name, data in job.whole.items()}


def test_two_bakes_of_one_output_the_second_is_refused_by_name_at_once(tmp_path, job, monkeypatch):
    live = Attempt.begin(tmp_path / "out", "another")
    monkeypatch.setattr("weight_edit.baking.writing.write_checkpoint", lambda *_, **__: pytest.fail("must not start"))
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match=re.escape(str(tmp_path / "out"))):
            bake(job.base, job.directions, tmp_path / "out", **options)
    assert live.files.is_dir()


def test_a_finished_output_is_not_gone_on_with(tmp_path, job):
    shutil.copytree(job.base, tmp_path / "out")
    with pytest.raises(UsageError, match="not empty"):
        bake(job.base, job.directions, tmp_path / "out", resume=True)


def test_with_overwrite_the_old_output_stays_until_the_resumed_one_is_whole(tmp_path, job):
    bake(job.base, job.directions, tmp_path / "out", strength=0.5)
    old = content(tmp_path / "out")
    stopped(job, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == old
    result = bake(job.base, job.directions, tmp_path / "out", overwrite=True, resume=True)
    assert result.bytes_kept > 0
    assert content(tmp_path) == {f"out/{name}": data for name, data in job.whole.items()}
