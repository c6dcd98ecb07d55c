"""A disk that is full, or cannot be written: one line, exit code 2, and nothing left behind."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers.checkpoint_samples import content
from tests.helpers.families import save_family
from weight_edit import bake
from weight_edit.checkpoint import whole_file
from weight_edit.checkpoint.manifest import write_manifest
from weight_edit.checkpoint.rewrite import lane, output
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError

ALL_FREE = """
import types, weight_edit.checkpoint.whole_file as whole_file
from weight_edit.cli import main
whole_file.shutil = types.SimpleNamespace(disk_usage=lambda path: types.SimpleNamespace(free=10**15))
main()
"""
"""The command, believing that there is room: as when somebody else fills the disk meanwhile."""


class Job:
    """A model of a few MB, and a direction."""

    def __init__(self, root: Path) -> None:
        self.base = save_family("llama", root / "base", max_shard_size="20KB")
        width = Checkpoint.open(self.base).tensors["model.norm.weight"].shape[0]
        self.directions = root / "d.safetensors"
        save_file({"direction": np.eye(1, width, dtype=np.float32)}, self.directions)
        # A file that nobody edits, larger than the small disk.
        (self.base / "vocabulary.bin").write_bytes(np.random.default_rng(0).bytes(3_000_000))
        self.before = content(self.base)

    def command(self, out: Path, *how: str) -> list[str]:
        start = how or ("-m", "weight_edit")
        return [
            sys.executable,
            *start,
            "bake",
            str(self.base),
            "--directions",
            str(self.directions),
            "--out",
            str(out),
            "-q",
        ]


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> Job:
    found = Job(tmp_path_factory.mktemp("full"))
    # The anatomy is proven before any test needs to be sure of what fails.
    bake(found.base, found.directions, found.base.parent / "whole")
    return found


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"only root can mount a small disk: {mount.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def failed(command: list[str], **options: object) -> str:
    """The one line that a command says when it fails as it should."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False, **options
    )
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stdout == ""
    return ended.stderr


def test_too_little_room_is_said_before_anything_is_written(job, small_disk):
    said = failed(job.command(small_disk / "out"))
    assert "not enough space" in said
    assert "missing" in said
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(job, small_disk):
    said = failed(job.command(small_disk / "deep" / "out", "-c", ALL_FREE))
    assert "the disk is full" in said
    assert str(small_disk / "deep" / "out") in said
    assert list(small_disk.iterdir()) == []
    assert content(job.base) == job.before


def test_a_disk_that_is_read_only(job, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = failed(job.command(small_disk / "deep" / "out"))
    assert "cannot be written to; choose another output" in said
    assert list(small_disk.iterdir()) == []


def test_an_old_output_survives_a_disk_that_fills_up(job, small_disk):
    (small_disk / "out").mkdir()
    write_manifest(small_disk / "out", {}, {})
    before = content(small_disk)
    failed([*job.command(small_disk / "out", "-c", ALL_FREE), "--overwrite"])
    assert content(small_disk) == before


def test_a_folder_that_may_not_be_written(job, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot be written to" in failed(job.command(tmp_path / "closed" / "out"))


def test_a_limit_on_the_size_of_files(job, tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    said = failed(job.command(tmp_path / "out"), preexec_fn=limit)
    assert "too large" in said.lower()
    assert list(tmp_path.iterdir()) == []


class FailingDisk:
    """`os` for the lane, on a disk that fails when some bytes were written."""

    def __init__(self, number: int, after: int) -> None:
        self._number, self._left = number, after

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def pwrite(self, descriptor: int, data: memoryview, offset: int) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise OSError(self._number, os.strerror(self._number))
        return os.pwrite(descriptor, data, offset)


@pytest.mark.parametrize("after", [0, 1_000_000, 3_001_000, 3_100_000])
@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EROFS, "cannot be written")],
)
def test_writes_that_fail_leave_nothing(job, tmp_path, monkeypatch, number, says, after):
    monkeypatch.setattr(lane, "os", FailingDisk(number, after))
    with pytest.raises(UsageError, match=says) as raised:
        bake(job.base, job.directions, tmp_path / "deep" / "out")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert content(job.base) == job.before


def test_a_disk_that_fails_when_all_is_flushed_leaves_nothing(job, tmp_path, monkeypatch):
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(output, "_sync", full)
    with pytest.raises(UsageError, match="the disk is full"):
        bake(job.base, job.directions, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", [1, 10**6])
def test_free_space_is_checked_before(job, tmp_path, monkeypatch, missing):
    needed = sum(bake(job.base, job.directions, tmp_path / "out", dry_run=True).files.values())

    def usage(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=needed + 1_000_000 - missing)

    monkeypatch.setattr(whole_file.shutil, "disk_usage", usage)
    with pytest.raises(UsageError, match="not enough space"):
        bake(job.base, job.directions, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_attempt_finished_need_not_be_free(job, tmp_path, monkeypatch):
    """A resumed bake needs room only for the rest."""
    note = output.Attempt.note

    def stopping(self: output.Attempt, name: str, *rest: Any) -> None:
        note(self, name, *rest)
        if name == "vocabulary.bin":
            raise KeyboardInterrupt

    needed = bake(job.base, job.directions, tmp_path / "out", dry_run=True).bytes_total + 1_000_000
    with monkeypatch.context() as patch:
        patch.setattr(output.Attempt, "note", stopping)
        with pytest.raises(KeyboardInterrupt):
            bake(job.base, job.directions, tmp_path / "out")
    monkeypatch.setattr(whole_file.shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 3_000_000))
    assert bake(job.base, job.directions, tmp_path / "out", resume=True).bytes_kept >= 3_000_000
    assert (tmp_path / "out" / "weight_edit.json").is_file()
