"""Of several processes that a launcher started, one says what went wrong, and the quicker ones leave it the time to."""

import sys

import pytest

from weight_edit.cli import launched


@pytest.mark.parametrize(("rank", "tells", "waits"), [(0, True, []), (1, False, [launched._PATIENCE])])
def test_what_all_find_is_said_by_the_first_before_another_ends(
    monkeypatch: pytest.MonkeyPatch, rank: int, tells: bool, waits: list[float]
) -> None:
    """The launcher ends them all as soon as one has ended."""
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delitem(sys.modules, "weight_edit.runtime.processes", raising=False)
    slept: list[float] = []
    monkeypatch.setattr(launched.time, "sleep", slept.append)
    assert (launched.may_tell(), slept) == (tells, waits)


def test_one_process_says_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launched.time, "sleep", lambda _: pytest.fail("it waits for nobody"))
    assert launched.may_tell()
