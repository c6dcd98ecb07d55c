"""The journal of a search in several processes that are killed and work together."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.killed_processes import Workers, all_same
from weight_edit.search.journal import Journal
from weight_edit.search.journal_entry import State

SEARCH = """
import math, os, random, time
from weight_edit.search.journal import Journal

def said(where, line):
    descriptor = os.open(where.replace("sqlite:///", "") + ".lines", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (line + "\\n").encode())
    os.close(descriptor)

def walk(where, name, seed):
    # Goes on where it was killed: its generator's state is kept with its place.
    def unit(keeper):
        said(where, name)
        state = keeper.state or {"at": 0.0, "steps": 0, "generator": random.Random(seed).getstate()}
        while state["steps"] < STEPS:
            draw = random.Random()
            version, inner, gauss = state["generator"]
            draw.setstate((version, tuple(inner), gauss))
            time.sleep(0.001)
            at, steps = state["at"] + draw.gauss(0, 1) / 3, state["steps"] + 1
            state = {"at": at, "steps": steps, "generator": draw.getstate()}
            keeper.keep(state)
        return {"values": [abs(state["at"]), math.exp(state["at"])], "nan": math.nan}
    return unit

def main(where):
    with Journal.open(where, {"seed": 3}, resume=True) as journal:
        start = journal.noted("start")
        if start is None:
            start = journal.note("start", [0.1 * number for number in range(1000)])
        first = journal.stage("first", {f"first {n}": walk(where, f"first {n}", n) for n in range(UNITS)})
        # What comes next depends on what came before.
        best = sorted(first, key=lambda name: first[name]["values"][0])[:3]
        second = journal.stage("second", {f"after {name}": walk(where, f"after {name}", name) for name in best})
        return {"start": sum(start), "first": first, "second": second}
"""


def source(steps: int, units: int) -> str:
    """A small search of two stages, the second made of the first's results."""
    return SEARCH.replace("STEPS", str(steps)).replace("UNITS", str(units))


def address(kind: str, path: Path) -> str:
    """A place for a journal, in a file or a database."""
    return str(path) if kind == "file" else f"sqlite:///{path}.db"


def lines(where: str) -> Counter[str]:
    """How often each unit was begun."""
    return Counter(Path(where.replace("sqlite:///", "") + ".lines").read_text().splitlines())


def check_journal(where: str, result: dict[str, Any]) -> None:
    """Each unit's result is in the journal once, and nothing else is left to do."""
    with Journal.open(where, {"seed": 3}, resume=True) as journal:
        entries = journal._storage.entries()
    done = Counter(entry.attributes["unit"] for entry in entries if entry.state is State.DONE)
    assert done == dict.fromkeys(["start", *result["first"], *result["second"]], 1)
    assert {entry.state for entry in entries} <= {State.DONE, State.FAILED}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Searches of a few steps."""
    with Workers(source(steps=3, units=6), tmp_path_factory.mktemp("workers")) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds that nobody disturbs."""
    where = address("file", tmp_path_factory.mktemp("alone") / "search")
    result: dict[str, Any] = workers.alone(where)
    assert len(result["first"]) == 6
    assert len(result["second"]) == 3
    assert set(lines(where).values()) == {1}
    check_journal(where, result)
    return result


@pytest.mark.parametrize("kind", ["file", "sqlite"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_search_that_is_killed_finds_the_same(
    workers: Workers, undisturbed: dict[str, Any], tmp_path: Path, kind: str, count: int
) -> None:
    """Killed at twenty random moments and gone on with; of two processes, one at a time."""
    places = [address(kind, tmp_path / f"search-{number}") for number in range(21)]
    longest = 0.2 if kind == "file" else 1.0
    results = workers.killed(places, kills=20, seed=count, longest=longest, count=count)
    assert all_same([undisturbed, *results])
    for number in range(len(results) // count):
        check_journal(places[number], undisturbed)


@pytest.mark.parametrize("kind", ["file", "sqlite"])
@pytest.mark.parametrize("count", [2, 3])
def test_processes_that_share_a_journal_find_the_same(
    workers: Workers, undisturbed: dict[str, Any], tmp_path: Path, kind: str, count: int
) -> None:
    where = address(kind, tmp_path / "search")
    assert all_same([undisturbed, *workers.together(where, count)])
    begun = lines(where)
    assert begun.keys() == {*undisturbed["first"], *undisturbed["second"]}
    assert set(begun.values()) == {1}, "each was computed once"
    check_journal(where, undisturbed)


def test_a_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    fails = source(steps=2, units=4).replace(
        'return {"values"', "if name == 'first 2': raise ValueError('no luck')\n        return {\"values\""
    )
    with Workers(fails, tmp_path / "workers") as workers:
        runs = [workers.start(tmp_path / "search") for _ in range(2)]
        for run in runs:
            with pytest.raises(AssertionError, match="no luck"):
                run.result()
        ends = sorted(run.said.splitlines()[-1].partition(":")[0] for run in runs)
    assert ends[0] == "ValueError"
    assert ends[1] in ("ValueError", "weight_edit.errors.ProcessError"), "it may have come after the first had ended"
