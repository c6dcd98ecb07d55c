"""An attempt at an output: who may go on with it, what of it is believed, and what is removed."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.helpers.checkpoint_samples import content
from tests.helpers.interruptions import exit_code, hidden
from weight_edit.checkpoint.manifest import FileRecord, record, sha256, write_manifest
from weight_edit.checkpoint.rewrite import attempt as attempts
from weight_edit.checkpoint.rewrite.attempt import Attempt
from weight_edit.checkpoint.rewrite.output import attempted, staged
from weight_edit.errors import UsageError

KEY = "k" * 64
FILES = {"a": b"first", "deep/b": b"second", "c": b""}


def interrupted(out: Path, key: str = "job", files: dict[str, bytes] = FILES) -> Path:
    """What a process that was killed leaves: its folder."""
    attempt = Attempt.begin(out, key)
    for name, data in files.items():
        path = attempt.files / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        attempt.note(name, record(attempt.files, name, "edited"))
    attempt.release()
    return attempt.folder


def there(attempt: Attempt) -> set[str]:
    return {path.relative_to(attempt.files).as_posix() for path in attempt.files.rglob("*") if path.is_file()}


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def test_the_same_job_goes_on_with_what_is_finished(out):
    folder = interrupted(out)
    attempt = Attempt.open(out, "job", resume=True)
    assert attempt.folder == folder
    assert set(attempt.finished) == set(FILES) == there(attempt)
    assert attempt.finished["a"] == FileRecord(record(attempt.files, "a", "edited").sha256, 5, "edited")
    assert attempt.worth_keeping
    attempt.remove()
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(("key", "resume"), [("another", True), ("job", False)])
def test_another_job_or_no_resume_starts_anew(out, key, resume):
    folder = interrupted(out)
    attempt = Attempt.open(out, key, resume)
    assert attempt.folder != folder
    assert not folder.exists()
    assert attempt.finished == {}
    assert not attempt.worth_keeping
    assert there(attempt) == set()


def test_only_what_is_as_the_journal_says_is_kept(out):
    folder = interrupted(out, files={**FILES, "d": b"fourth", "e": b"fifth"})
    (folder / "files" / "a").write_bytes(b"fIrst")
    (folder / "files" / "d").write_bytes(b"four")
    (folder / "files" / "e").unlink()
    (folder / "files" / "under way").write_bytes(b"half of i")
    attempt = Attempt.open(out, "job", resume=True)
    assert set(attempt.finished) == there(attempt) == {"deep/b", "c"}


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_that_was_cut_costs_one_file(out, cut):
    journal = interrupted(out) / "journal"
    journal.write_bytes(journal.read_bytes()[:-cut])
    attempt = Attempt.open(out, "job", resume=True)
    assert set(attempt.finished) == there(attempt) == {"a", "deep/b"}


def test_what_is_noted_after_a_cut_line_is_read_the_next_time(out):
    journal = interrupted(out) / "journal"
    journal.write_bytes(journal.read_bytes()[:-20])
    attempt = Attempt.open(out, "job", resume=True)
    (attempt.files / "new").write_bytes(b"n")
    attempt.note("new", record(attempt.files, "new", "edited"))
    attempt.release()
    again = Attempt.open(out, "job", resume=True)
    assert set(again.finished) == {"a", "deep/b", "new"}


def _line(losses: str) -> bytes:
    """A line of a journal about the file "a" with these figures."""
    return f'{{"file": "a", "sha256": "{"0" * 64}", "size": 5, "origin": "edited", "losses": {losses}}}\n'.encode()


@pytest.mark.parametrize(
    "journal",
    [
        b'{"key": "job"}\nnonsense\n',
        b'{"key": "job"}\n[]\n',
        b'{"key": "job"}\n{"file": "a"}\n',
        b'{"key": "job"}\n{"file": "a", "sha256": "x", "size": 5, "origin": "edited"}\n',
        b'{"key": "job"}\n' + b"[" * 5000 + b"]" * 5000 + b"\n",
        b'{"key": "job"}\n' + _line('{"w": [1, 2, 3]}'),
        b'{"key": "job"}\n' + _line('{"w": 5}'),
        b'{"key": "job"}\n' + _line('{"w": ["a", null]}'),
    ],
)
def test_a_journal_that_is_no_journal_starts_anew(out, journal):
    folder = interrupted(out)
    (folder / "journal").write_bytes(journal)
    attempt = Attempt.open(out, "job", resume=True)
    assert attempt.folder != folder
    assert attempt.finished == {}
    assert [path.name for path in out.parent.iterdir()] == [attempt.folder.name]


@pytest.mark.parametrize("journal", [b"", b"\n", b"{}\n", b'{"key": "job"}', b"\xff\xfe\n", b'{"key": 5}\n'])
def test_a_folder_whose_journal_does_not_begin_as_ours_is_somebody_elses(out, journal):
    folder = interrupted(out)
    (folder / "journal").write_bytes(journal)
    attempt = Attempt.open(out, "job", resume=True)
    assert attempt.folder != folder
    assert attempt.finished == {}
    assert (folder / "journal").read_bytes() == journal
    assert all((folder / "files" / name).read_bytes() == data for name, data in FILES.items())


@pytest.mark.parametrize("name", ["../../precious", "/etc/hostname", "deep/../../../precious"])
def test_a_journal_that_names_files_elsewhere_harms_nothing(out, name):
    precious = out.parent / "precious"
    precious.write_bytes(b"mine")
    folder = interrupted(out)
    entry = {"file": name, "sha256": record(out.parent, "precious", "copied").sha256, "size": 4, "origin": "copied"}
    with (folder / "journal").open("a") as journal:
        journal.write(json.dumps(entry) + "\n")
    attempt = Attempt.open(out, "job", resume=True)
    attempt.remove()
    assert precious.read_bytes() == b"mine"


def test_the_fullest_of_several_is_gone_on_with_and_the_others_go(out):
    one = interrupted(out, files={"a": b"first"})
    interrupted(out, key="another", files={**FILES, "d": b"d"})
    # Made beside the live one, as two processes at the same moment could.
    (out.parent / "aside").mkdir()
    best = interrupted(out.parent / "aside" / "out").rename(out.parent / ".out.partial-0123456789ab")
    attempt = Attempt.open(out, "job", resume=True)
    assert attempt.folder == best
    assert not one.exists()
    assert [path.name for path in out.parent.glob(".out.*")] == [best.name]


def test_a_live_process_is_refused_by_name_and_keeps_its_files(out):
    live = Attempt.begin(out, "job")
    (live.files / "a").write_bytes(b"first")
    for resume in (True, False):
        with pytest.raises(UsageError, match=r"another process is writing .*out; wait for it"):
            Attempt.open(out, "job", resume)
    assert there(live) == {"a"}
    live.release()
    assert Attempt.open(out, "job", resume=True).folder == live.folder


def test_the_lock_of_a_live_process_is_its_own_and_ends_with_it(out):
    code = (
        "import sys\nfrom pathlib import Path\nfrom weight_edit.checkpoint.rewrite.attempt import Attempt\n"
        "Attempt.begin(Path(sys.argv[1]), 'job')\nprint('ready', flush=True)\nsys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(UsageError, match="another process"):
            Attempt.open(out, "job", resume=True)
        process.kill()
        process.wait(timeout=30)
    attempt = Attempt.open(out, "job", resume=True)
    assert attempt.finished == {}


def test_names_that_are_patterns_stand_for_themselves(tmp_path):
    kept = interrupted(tmp_path / "out1")
    Attempt.open(tmp_path / "out[0-9]", "job", resume=True)
    Attempt.open(tmp_path / "out?", "job", resume=False)
    Attempt.open(tmp_path / "*", "job", resume=False)
    assert kept.is_dir()


def test_what_is_not_ours_is_left_alone(out):
    (out.parent / ".out.partial-theirs").mkdir()
    (out.parent / ".out.partial-file").write_bytes(b"x")
    linked = out.parent / ".out.partial-linked"
    linked.mkdir()
    (linked / "journal").symlink_to(out.parent / ".out.partial-file")
    Attempt.open(out, "job", resume=True)
    assert (out.parent / ".out.partial-theirs").is_dir()
    assert (out.parent / ".out.partial-file").read_bytes() == b"x"
    assert linked.is_dir()


def test_an_attempt_that_was_taken_for_dead_before_it_was_locked_begins_again(out, monkeypatch):
    """Another process may look at it between the making of its journal and the lock."""
    removed: list[str] = []
    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        if len(removed) < 2:
            folder = next(out.parent.glob(".out.partial-*"))
            shutil.rmtree(folder)
            removed.append(folder.name)
        flock(descriptor, how)

    monkeypatch.setattr("weight_edit.checkpoint.rewrite.attempt.fcntl.flock", late)
    attempt = Attempt.begin(out, "job")
    assert attempt.files.is_dir()
    assert attempt.folder.name not in removed
    assert len(removed) == 2
    assert [path.name for path in out.parent.iterdir()] == [attempt.folder.name]


def write(attempt: Attempt, name: str, data: bytes = b"data") -> FileRecord:
    """A finished file."""
    path = attempt.files / name
    path.write_bytes(data)
    record = FileRecord(sha256(path), len(data), "copied")
    attempt.note(name, record)
    return record


@contextmanager
def stopped(out: Path, **options) -> Iterator[Attempt]:
    """An attempt that Ctrl-C ends where the block does."""
    with suppress(KeyboardInterrupt), attempted(out, key=KEY, **options) as attempt:
        yield attempt
        raise KeyboardInterrupt


def test_a_cut_line_in_the_journal_does_not_spoil_what_comes_after_it(tmp_path):
    out = tmp_path / "out"
    with stopped(out) as first:
        write(first, "a")
    with (first.folder / "journal").open("ab") as journal:
        journal.write(b'{"file": "b", "sha2')
    with stopped(out, resume=True) as second:
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
    assert hidden(tmp_path) == []


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
    with stopped(tmp_path / "out.partial-x") as other:
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
    with stopped(out) as first:
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
    assert hidden(tmp_path)
    with staged(out) as folder:
        (folder / "x").touch()
    assert content(tmp_path) == {"out/x": b""}
    assert hidden(tmp_path) == []


def test_ctrl_c_during_the_check_lets_the_attempt_go(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with stopped(out) as first:
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
    with stopped(out) as first:
        write(first, "a")
    with pytest.raises(UsageError, match="not enough space"), attempted(out, key=KEY, resume=True, needed_bytes=10**18):
        pytest.fail("must not start")
    with attempted(out, key=KEY, resume=True) as again:
        assert set(again.finished) == {"a"}
