"""The lock on a journal's file."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.killed_processes import Workers
from weight_edit.search import journal_lock
from weight_edit.search.journal_lock import JournalLock
from weight_edit.search.owner import machine

COUNTS = """
import os, sys
from pathlib import Path
from weight_edit.search import journal_lock
from weight_edit.search.journal_lock import JournalLock
if {without}:
    journal_lock._locked = lambda descriptor: False
    del os.O_TMPFILE

def main(where):
    lock = JournalLock(Path(where) / "log")
    number = Path(where) / "number"
    for _ in range({times}):
        lock.acquire()
        found = int(number.read_text() or 0) if number.exists() else 0
        number.write_text(str(found + 1))
        lock.release()
    return None
"""


@pytest.mark.parametrize("without", [False, True], ids=["with the system's locks", "without"])
def test_one_process_has_it(tmp_path: Path, without: bool) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with Workers(COUNTS.format(without=without, times=60), tmp_path / "workers") as workers:
        workers.together(place, 3)
    assert (place / "number").read_text() == "180"
    assert sorted(path.name for path in place.iterdir()) == ["log", "number"]


def test_one_that_is_killed_leaves_it_free(tmp_path: Path) -> None:
    """At once, on this machine; nobody waits for long."""
    places = [tmp_path / f"place-{number}" for number in range(40)]
    for place in places:
        place.mkdir()
    with Workers(COUNTS.format(without=False, times=100), tmp_path / "workers") as workers:
        results = workers.killed(places, kills=20, longest=0.01)
    assert results
    assert set(results) == {None}


@given(st.lists(st.binary(max_size=8).map(lambda line: line.replace(b"\n", b"")), max_size=5), st.binary(max_size=8))
def test_what_was_left_of_a_line_is_cut_off(tmp_path_factory, lines: list[bytes], rest: bytes) -> None:
    path = tmp_path_factory.mktemp("lock") / "log"
    whole = b"".join(line + b"\n" for line in lines)
    rest = rest.replace(b"\n", b"")
    path.write_bytes(whole + rest)
    lock = JournalLock(path)
    assert lock.acquire()
    assert path.read_bytes() == whole
    lock.release()


def test_a_long_rest_is_cut_off_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_lock, "_BLOCK", 3)
    path = tmp_path / "log"
    path.write_bytes(b"first\nsecond\n" + b"x" * 100)
    lock = JournalLock(path)
    lock.acquire()
    lock.release()
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_file_of_a_dead_process_of_this_machine_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_lock, "PATIENCE", 1e9)
    path = tmp_path / "log"
    (tmp_path / "log.lock").write_text(f"weight_edit {machine()} 0123")
    lock = JournalLock(path)
    assert lock.acquire()
    lock.release()
    assert [each.name for each in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize("content", ["", "weight_edit elsewhere 0123"], ids=["Optuna's", "another machine's"])
def test_a_file_of_another_is_removed_when_nobody_touches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "log.lock"
    path.write_text(content)
    touched: list[float] = []

    def sleep(seconds: float) -> None:
        # Its owner lives for a while.
        touched.append(seconds)
        if len(touched) < 5:
            os.utime(path, ns=(0, len(touched)))
        now[0] += 20

    now = [0.0]
    monkeypatch.setattr(journal_lock.time, "sleep", sleep)
    monkeypatch.setattr(journal_lock.time, "monotonic", lambda: now[0])
    lock = JournalLock(tmp_path / "log")
    assert lock.acquire()
    assert len(touched) == 6, "four signs of life, and two pauses without one"
    lock.release()
    assert [each.name for each in tmp_path.iterdir()] == ["log"]


def test_a_file_that_is_new_is_not_taken_for_the_old(tmp_path: Path) -> None:
    """Between the look at a dead one's and its removal, another process may have removed it and made its own."""
    lock = JournalLock(tmp_path / "log")
    file = tmp_path / "log.lock"
    file.write_text("dead")
    found = journal_lock._read(file)
    file.write_text("alive")
    lock._remove(found)
    assert file.read_text() == "alive"
    lock._remove(journal_lock._read(file))
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_was_taken_away_is_left_to_who_has_it_now(tmp_path: Path) -> None:
    lock = JournalLock(tmp_path / "log")
    lock.acquire()
    (tmp_path / "log.lock").write_text("another's")
    lock.release()
    assert (tmp_path / "log.lock").read_text() == "another's"


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("no line break")
    (tmp_path / "log").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic"):
        JournalLock(tmp_path / "log").acquire()
    assert (tmp_path / "mine").read_text() == "no line break"
