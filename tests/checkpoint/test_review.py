"""Moments and folders that only bad luck or bad intent brings about: none may cost bytes, hours or other files."""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.checkpoint_samples import content, edit_of, make_checkpoint
from tests.helpers.edit_samples import adding
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.files import list_files
from weight_edit.checkpoint.manifest import FileRecord, sha256, write_manifest
from weight_edit.checkpoint.rewrite import attempt as attempts
from weight_edit.checkpoint.rewrite.attempt import Attempt
from weight_edit.checkpoint.rewrite.lane import BUFFER, Lane, LaneFile
from weight_edit.checkpoint.rewrite.output import attempted, staged
from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import STORED, decode
from weight_edit.checkpoint.tensor.storage import Plain
from weight_edit.errors import UsageError

KEY = "k" * 64


def write(attempt: Attempt, name: str, data: bytes = b"data") -> FileRecord:
    """A finished file."""
    path = attempt.files / name
    path.write_bytes(data)
    record = FileRecord(sha256(path), len(data), "copied")
    attempt.note(name, record)
    return record


@contextmanager
def interrupted(out: Path, **options) -> Iterator[Attempt]:
    """An attempt that Ctrl-C ends where the block does."""
    with suppress(KeyboardInterrupt), attempted(out, key=KEY, **options) as attempt:
        yield attempt
        raise KeyboardInterrupt


def exit_code(work: Callable[[], None]) -> int:
    """How a process of its own ends that does some work."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def partial(folder: Path) -> list[str]:
    """Names of hidden things in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


# Numbers


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_limit_is_the_first_number_that_is_stored_as_infinity(dtype):
    # On its way to bfloat16 a number is rounded to float32, which may bring it to where bfloat16 is infinite.
    storage = Plain("x", dtype, (1, 2), -1)
    raw = np.zeros(2 * STORED[dtype].itemsize, np.uint8)
    storage.encode(np.array([[np.nextafter(storage.limit, 0), storage.limit]]), 0, {"x": raw}, 0.0)
    assert np.isfinite(decode(raw, dtype)).tolist() == [True, False]


# Attempts


def test_a_cut_line_in_the_journal_does_not_spoil_what_comes_after_it(tmp_path):
    out = tmp_path / "out"
    with interrupted(out) as first:
        write(first, "a")
    with (first.folder / "journal").open("ab") as journal:
        journal.write(b'{"file": "b", "sha2')
    with interrupted(out, resume=True) as second:
        assert set(second.finished) == {"a"}
        write(second, "c")
    with attempted(out, key=KEY, resume=True) as third:
        assert set(third.finished) == {"a", "c"}


@pytest.mark.parametrize("fails", ["mkdir", "write", "flock"])
def test_an_attempt_that_cannot_begin_leaves_nothing(tmp_path, monkeypatch, fails):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails == "mkdir":
        mkdir = Path.mkdir
        monkeypatch.setattr(Path, "mkdir", lambda self, **k: full() if self.name == "files" else mkdir(self, **k))
    else:
        monkeypatch.setattr(attempts.os if fails == "write" else attempts.fcntl, fails, full)
    with pytest.raises(UsageError, match="disk is full"), staged(tmp_path / "out"):
        pytest.fail("must not start")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["locked", "removed"])
def test_an_attempt_taken_for_dead_before_it_is_locked_begins_again(tmp_path, monkeypatch, taken):
    lock, first = attempts._lock, [True]

    def late(journal: int) -> bool:
        if first[0]:
            first[0] = False
            if taken == "locked":
                raise BlockingIOError
            Path(f"/proc/self/fd/{journal}").resolve().unlink()
        return lock(journal)

    monkeypatch.setattr(attempts, "_lock", late)
    with staged(tmp_path / "out") as folder:
        (folder / "x").touch()
    assert content(tmp_path) == {"out/x": b""}
    assert partial(tmp_path) == []


def test_a_file_system_without_locks_can_be_written_to(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(attempts.fcntl, "flock", no_locks)
    with staged(tmp_path / "out") as folder:
        (folder / "x").touch()
        # Nobody can tell whether an attempt is dead there, so that it is left alone, and is no reason to refuse.
        with staged(tmp_path / "out") as other:
            (other / "x").touch()
        (tmp_path / "out" / "x").unlink()
    assert content(tmp_path) == {"out/x": b""}


def test_attempts_at_an_output_with_a_longer_name_are_not_taken_for_this_ones(tmp_path):
    with interrupted(tmp_path / "out.partial-x") as other:
        write(other, "a")
    with attempted(tmp_path / "out.partial-x", key=KEY, resume=True), staged(tmp_path / "out") as folder:
        (folder / "x").touch()
    assert set(content(tmp_path)) == {"out/x", "out.partial-x/a"}


def test_folders_that_only_look_like_an_attempt_are_left_alone(tmp_path):
    mine = tmp_path / ".out.partial-mine"
    (mine / "files").mkdir(parents=True)
    (mine / "journal").write_text("Dear diary")
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "files").mkdir(parents=True)
    (elsewhere / "journal").write_text(json.dumps({"key": KEY}) + "\n")
    (elsewhere / "files" / "precious").write_text("x")
    (tmp_path / ".out.partial-0123456789ab").symlink_to("elsewhere")
    for resume in (True, False):
        with attempted(tmp_path / "out", key=KEY, resume=resume, overwrite=True) as attempt:
            write_manifest(attempt.files, {}, {})
    assert (mine / "journal").exists()
    assert (elsewhere / "files" / "precious").exists()


def test_a_folder_whose_removal_was_cut_short_is_removed_by_the_next_attempt(tmp_path):
    out = tmp_path / "out"
    with interrupted(out) as first:
        for number in range(20):
            write(first, f"{number}")
    unlink, left = os.unlink, [10]

    def killed(*arguments, **options):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        unlink(*arguments, **options)

    def work() -> None:
        os.unlink = killed
        with staged(out):
            pass

    assert exit_code(work) == 9
    assert partial(tmp_path)
    with staged(out) as folder:
        (folder / "x").touch()
    assert content(tmp_path) == {"out/x": b""}
    assert partial(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_second_signal_does_not_stop_the_cleaning_up(tmp_path, monkeypatch, error):
    unlink, once = os.unlink, [True]

    def pressed(*arguments, **options):
        if once[0]:
            once[0] = False
            raise error
        unlink(*arguments, **options)

    def work() -> None:
        with staged(tmp_path / "out") as folder:
            (folder / "x").touch()
            monkeypatch.setattr(os, "unlink", pressed)
            raise RuntimeError

    with pytest.raises((RuntimeError, error)):
        work()
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_during_the_check_lets_the_attempt_go(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with interrupted(out) as first:
        write(first, "a")

    def pressed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(attempts, "sha256", pressed)
    with pytest.raises(KeyboardInterrupt), attempted(out, key=KEY, resume=True):
        pytest.fail("must not start")
    monkeypatch.undo()
    with attempted(out, key=KEY, resume=True) as again:
        assert set(again.finished) == {"a"}


def test_a_resumed_attempt_that_cannot_go_on_yet_is_kept(tmp_path):
    out = tmp_path / "out"
    with interrupted(out) as first:
        write(first, "a")
    with pytest.raises(UsageError, match="not enough space"), attempted(out, key=KEY, resume=True, needed_bytes=10**18):
        pytest.fail("must not start")
    with attempted(out, key=KEY, resume=True) as again:
        assert set(again.finished) == {"a"}


def test_an_old_output_survives_a_kill_between_the_two_renames(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_manifest(out, {"what": "old"}, {})
    old = content(out)["weight_edit.json"]
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == "files":
            os._exit(9)
        return rename(self, target)

    def work() -> None:
        Path.rename = killed  # type: ignore[method-assign]
        with staged(out, overwrite=True) as folder:
            write_manifest(folder, {"what": "new"}, {})

    assert exit_code(work) == 9
    # Whatever the next call is, it finds the old output in its place, or it puts a new one there; no copy stays hidden.
    with pytest.raises(UsageError, match="--overwrite"), staged(out) as folder:
        write_manifest(folder, {"what": "newer"}, {})
    assert content(tmp_path) == {"out/weight_edit.json": old}
    assert partial(tmp_path) == []


# Sources


@pytest.mark.parametrize("name", ["tokenizer.json", "assets/deep/vocab.bin", "modeling_tiny.py"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_small_file_that_changes_after_the_plan_is_noticed(tmp_path, name, linked):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))
    plan = plan_rewrite(source, adding(source, ["model.embed.weight"]))
    with (tmp_path / "source" / name).open("ab") as file:
        file.write(b"more")
    with pytest.raises(UsageError, match="changed"), staged(tmp_path / "out") as folder:
        write_checkpoint(plan, folder, linked=linked)
    assert not (tmp_path / "out").exists()


def test_a_source_on_a_disk_that_fails_is_named(tmp_path, monkeypatch):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))

    def broken(*_):
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(UsageError, match="cannot be read: Input/output error"), staged(tmp_path / "out") as folder:
        rewrite(source, folder, [])


def test_a_folder_in_the_place_of_a_file_that_is_written_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "source")
    (folder / "weight_edit.json").mkdir()
    (folder / "weight_edit.json" / "x").touch()
    source = Checkpoint.open(folder)
    with pytest.raises(UsageError, match=r"weight_edit\.json"):
        plan_rewrite(source, adding(source, ["model.embed.weight"]))


def test_a_config_that_cannot_be_written_again_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "source")
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"a": "\u00e9 \\ud800",', 1), encoding="utf-8")
    with pytest.raises(UsageError, match=r"config\.json: .*is no valid Unicode"):
        Checkpoint.open(folder)


# Threads


def test_a_second_ctrl_c_waits_for_the_lanes(tmp_path, monkeypatch):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))
    plan = plan_rewrite(source, adding(source, ["model.embed.weight"]))
    inside, go_on = threading.Event(), threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            go_on.wait(20)
        fsync(descriptor)

    def pressed(*_, **__):
        inside.wait(20)
        raise KeyboardInterrupt

    presses = [2]
    join = threading.Thread.join

    def impatient(self: threading.Thread, timeout: float | None = None) -> None:
        if self.name.startswith("lane") and threading.current_thread() is threading.main_thread() and presses[0]:
            presses[0] -= 1
            if not presses[0]:
                threading.Timer(0.3, go_on.set).start()
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr("weight_edit.checkpoint.rewrite.rewrite.wait", pressed)
    monkeypatch.setattr(threading.Thread, "join", impatient)
    with pytest.raises(KeyboardInterrupt), attempted(tmp_path / "out", key=KEY) as attempt:
        write_checkpoint(plan, attempt.files, done=attempt.note)
    alive = [thread.name for thread in threading.enumerate() if thread.name.startswith("lane")]
    go_on.set()
    assert alive == []


@pytest.mark.parametrize(
    "size", [0, 1, 4095, 4096, 4097, BUFFER - 1, BUFFER, BUFFER + 1, 4 * BUFFER, 5 * BUFFER + 4097]
)
def test_lane_writes_what_it_is_given_at_every_edge(tmp_path, monkeypatch, size):
    data = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    monkeypatch.setattr("weight_edit.checkpoint.rewrite.lane._DIRECT_FROM", 0)
    with Lane() as lane:
        for number in range(2):
            with LaneFile(lane, tmp_path / f"{number}", size) as file:
                file.write(data[: size // 3].data)
                file.write(data[size // 3 :].data)
                record = file.finish("copied")
            assert (tmp_path / f"{number}").read_bytes() == data.tobytes()
            assert record.sha256 == sha256(tmp_path / f"{number}")
            assert record.size == size


def test_short_and_refused_direct_writes_go_on_where_they_stopped(tmp_path, monkeypatch):
    data = np.random.default_rng(0).integers(0, 256, 3 * BUFFER + 777, np.uint8)
    pwrite, flags = os.pwrite, []

    def odd(descriptor, piece, offset):
        direct = bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT)
        flags.append(direct)
        if direct and offset >= BUFFER:
            raise OSError(errno.EINVAL, "no")
        return pwrite(descriptor, piece[: max(1, len(piece) // 2)] if not direct else piece, offset)

    monkeypatch.setattr("weight_edit.checkpoint.rewrite.lane._DIRECT_FROM", 0)
    monkeypatch.setattr(os, "pwrite", odd)
    with Lane() as lane, LaneFile(lane, tmp_path / "x", data.size) as file:
        file.write(data.data)
        file.finish("copied")
    assert (tmp_path / "x").read_bytes() == data.tobytes()


def test_a_disk_that_fails_in_a_lane_is_told_and_nothing_hangs(tmp_path, monkeypatch):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source", shards=3))
    calls = iter(range(1000))
    pwrite = os.pwrite

    def full(*arguments):
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    before = threading.active_count()
    with pytest.raises(UsageError, match="disk is full"), staged(tmp_path / "out") as folder:
        rewrite(source, folder, adding(source, ["model.embed.weight"]))
    assert threading.active_count() == before
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_empty_and_scalar_tensors_are_edited_to_what_they_are(tmp_path):
    source = Checkpoint.open(make_checkpoint(tmp_path / "source"))
    with staged(tmp_path / "out") as folder:
        rewrite(source, folder, [edit_of(source, "model.empty", None), edit_of(source, "model.scale", None)])
    before, after = content(tmp_path / "source"), content(tmp_path / "out")
    assert after == before
    assert list_files(tmp_path / "out")[0] == list_files(tmp_path / "source")[0]
