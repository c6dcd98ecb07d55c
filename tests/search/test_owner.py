"""Who works on a unit, and whether it is known to have ended."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from weight_edit.search import heartbeat, owner
from weight_edit.search.heartbeat import STALE, Heartbeat, Watch
from weight_edit.search.owner import Owner

SLEEPS = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]


def owner_of(process: int) -> Owner:
    """A process as it is now."""
    found = owner._looked_up(process)
    assert found is not None
    return replace(Owner.here(), process=process, start=found[1])


def test_this_process_has_not_ended() -> None:
    assert Owner.here().is_here
    assert not Owner.here().has_ended
    assert Owner.here() != Owner.here(), "each opening has a token of its own"


def test_a_process_is_read_as_it_was_written() -> None:
    here = Owner.here()
    assert Owner.from_dict(json.loads(json.dumps(here.to_dict()))) == here
    assert Owner.from_dict(replace(here, start=None).to_dict()) == replace(here, start=None)


@pytest.mark.parametrize(
    "changes",
    [
        *({"process": process} for process in ("1", "../1", 0, -1, True, None, 1.0, 2**31)),
        *({"start": start} for start in ("1", 1.0, False)),
        *({name: value} for name in ("host", "machine", "token") for value in (None, 1, [])),
        {"more": 1},
    ],
)
def test_what_is_no_process_is_refused(changes: dict[str, Any]) -> None:
    entry = Owner.here().to_dict()
    with pytest.raises(ValueError, match="no process"):
        Owner.from_dict({**entry, **changes})


@pytest.mark.parametrize("entry", [{}, {"host": "here"}, [], None, 7])
def test_what_lacks_a_key_is_no_process(entry: Any) -> None:
    with pytest.raises(ValueError, match="no process"):
        Owner.from_dict(entry)


def test_a_process_has_ended_once_it_is_killed_even_if_nobody_has_asked_for_its_exit_code() -> None:
    child = subprocess.Popen(SLEEPS, stdout=subprocess.PIPE)
    found = owner_of(child.pid)
    assert not found.has_ended
    child.kill()
    assert child.stdout is not None
    child.stdout.read()
    while not found.has_ended:
        assert child.returncode is None
    child.communicate()
    assert found.has_ended


def test_a_process_with_the_id_of_another_is_not_that_one() -> None:
    here = Owner.here()
    assert here.start is not None
    assert replace(here, start=here.start - 1).has_ended


def test_of_another_machine_nothing_is_known() -> None:
    gone = replace(Owner.here(), process=2**22 + 1)
    assert gone.has_ended
    assert not replace(gone, host="elsewhere").has_ended
    assert not replace(gone, machine="started anew").has_ended


def test_without_proc_the_system_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    here = Owner.here()
    monkeypatch.setattr(owner, "_PROC", tmp_path)
    assert not here.has_ended
    assert not replace(here, process=1).has_ended
    assert replace(here, process=2**22 + 1).has_ended


def test_a_sign_of_life_is_timed_by_the_watchers_clock() -> None:
    now = 1000.0
    watch = Watch(clock=lambda: now)
    assert not watch.is_stale(3, "1")
    now += STALE - 1
    assert not watch.is_stale(3, "1")
    assert not watch.is_stale(4, "1"), "each trial has its own"
    now += 1
    assert watch.is_stale(3, "1")
    assert not watch.is_stale(3, "2"), "another sign begins anew"
    now += STALE
    assert watch.is_stale(3, "2")


@pytest.mark.parametrize("going_on", [True, False])
def test_a_heart_beats_until_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch, going_on: bool) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.001)
    beats: list[int] = []
    ended: list[None] = []

    def beat(number: int) -> bool:
        beats.append(number)
        return going_on

    with Heartbeat(beat, lambda: ended.append(None)):
        while len(beats) < (5 if going_on else 1) or (not going_on and not ended):
            pass
    assert beats == list(range(1, len(beats) + 1))
    assert len(beats) >= 5 if going_on else beats == [1]
    assert ended == [None]
