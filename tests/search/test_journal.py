"""The journal of a search, in one process."""

import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from weight_edit.errors import ProcessError, UsageError
from weight_edit.search import heartbeat, journal_storage, json_text
from weight_edit.search import journal as journal_module
from weight_edit.search.journal import NAME, ClaimLostError, Journal, Keeper, study_name
from weight_edit.search.journal_entry import State
from weight_edit.search.json_text import encoded
from weight_edit.search.owner import Owner

INPUTS = {"seed": 3, "model": "organism", "share": 0.1, "prompts": [1, 2]}

Open = Callable[..., Journal]


@pytest.fixture(params=["file", "sqlite"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a journal."""
    return str(tmp_path / "search") if request.param == "file" else f"sqlite:///{tmp_path / 'search.db'}"


@pytest.fixture
def opened(where: str) -> Iterator[Open]:
    """Opens the journal, as a process would that goes on with it."""
    made: list[Journal] = []

    def open_it(**options: Any) -> Journal:
        made.append(Journal.open(where, INPUTS, **{"resume": True, **options}))
        return made[-1]

    yield open_it
    for each in made:
        each.close()


def study_of(where: str) -> optuna.Study:
    """The study, by Optuna's own means."""
    if "://" in where:
        return optuna.load_study(study_name=study_name(INPUTS), storage=where)
    return optuna.load_study(
        study_name=NAME, storage=JournalStorage(JournalFileBackend(f"{where}/{journal_storage.JOURNAL_FILE}"))
    )


def constant(**result: Any) -> Callable[[Keeper], dict[str, Any]]:
    """A unit that gives a result."""
    return lambda _: result


def never(_: Keeper) -> dict[str, Any]:
    """A unit that must not be run."""
    raise AssertionError("it was run")


def entries(journal: Journal, unit: str) -> list[State]:
    """What has become of a unit's attempts."""
    return [entry.state for entry in journal._storage.entries() if entry.attributes["unit"] == unit]


class Elsewhere(Exception):
    """What a unit that fails raises."""


# Results


def test_results_are_in_the_order_of_the_units_and_each_is_computed_once(opened: Open) -> None:
    done: list[str] = []

    def unit(name: str) -> Callable[[Keeper], dict[str, Any]]:
        return lambda _: done.append(name) or {"name": name}

    journal = opened()
    assert journal.stage("first", {"b": unit("b")}) == {"b": {"name": "b"}}
    results = journal.stage("first", {name: unit(name) for name in "cab"})
    assert list(results.items()) == [(name, {"name": name}) for name in "cab"]
    assert opened().stage("first", dict.fromkeys("abc", never)).keys() == {"a", "b", "c"}
    assert done == ["b", "c", "a"]
    assert journal.stage("second", {"a": unit("a")}) == {"a": {"name": "a"}}, "another stage has units of its own"
    assert done == ["b", "c", "a", "a"]
    assert journal.stage("none", {}) == {}


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.floats(allow_nan=True), max_size=5), st.text(st.characters(exclude_categories=["Cs"])))
def test_a_result_is_the_same_for_who_makes_it_and_who_reads_it(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float], text: str
) -> None:
    where = tmp_path_factory.mktemp("journal")
    result = {"numbers": tuple(numbers), "text": text, "more": {"nan": math.nan, "inf": -math.inf, "zero": -0.0}}
    made = Journal.open(where, {}).stage("s", {"u": constant(**result)})
    read = Journal.open(where, {}, resume=True).stage("s", {"u": never})
    assert json.dumps(made) == json.dumps(read) == json.dumps({"u": result})


@pytest.mark.parametrize("longest", [50, 1 << 23])
def test_values_of_several_megabytes_are_kept(opened: Open, monkeypatch: pytest.MonkeyPatch, longest: int) -> None:
    size = 1_000 if longest == 50 else 1_500_000
    monkeypatch.setattr(journal_storage, "_LARGE", longest)
    # Nothing that is compressed well.
    value = {"bytes": os.urandom(size).hex(), "numbers": [1 / (1 + number) for number in range(size // 100)]}
    journal = opened()
    assert journal.note("texts", value) == value
    again = opened()
    assert again.noted("texts") == value

    def unit(keeper: Keeper) -> dict[str, Any]:
        keeper.keep({**value, "first": True})
        keeper.keep(value)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal.stage("s", {"u": unit})
    assert again.stage("s", {"u": lambda keeper: keeper.state}) == {"u": value}


def test_what_was_noted_first_stands(opened: Open) -> None:
    first, second = opened(), opened()
    assert first.noted("texts") is None
    assert first.note("texts", [1.5, None]) == [1.5, None]
    assert second.note("texts", "later") == [1.5, None]
    assert second.noted("texts") == first.noted("texts") == [1.5, None]
    assert second.noted("other") is None


@pytest.mark.parametrize("result", [[1], None, 3])
def test_a_result_is_an_object(opened: Open, result: Any) -> None:
    with pytest.raises(TypeError, match="unit u gave"):
        opened().stage("s", {"u": lambda _: result})


def test_each_result_is_told_once(opened: Open) -> None:
    told: list[tuple[int, int, str, Any]] = []
    units = {name: constant(name=name) for name in "ab"}
    journal = opened(told=lambda *all_of_it: told.append(all_of_it))
    journal.stage("s", units)
    expected = [(1, 2, "a", {"name": "a"}), (2, 2, "b", {"name": "b"})]
    assert told == expected
    told.clear()
    opened(told=lambda *all_of_it: told.append(all_of_it)).stage("s", dict.fromkeys("ab", never))
    assert told == expected


# Optuna's view


def test_optuna_has_the_front(opened: Open, where: str) -> None:
    units = {
        "good": constant(values=[0.1, 0.5]),
        "other": constant(values=[0.5, math.inf]),
        "dominated": constant(values=[0.2, 0.6]),
        "not measured": constant(values=[math.nan, 0.1]),
        "one": constant(values=[0.3]),
        "no values": constant(answer=42),
    }
    journal = opened()
    journal.stage("s", units)
    journal.note("texts", "what all need")
    study = study_of(where)
    assert study.metric_names == ["refusal", "damage"]
    assert [trial.user_attrs["unit"] for trial in study.best_trials] == ["good"]
    complete = {trial.user_attrs["unit"]: trial.values for trial in study.trials if trial.values is not None}
    assert complete == {"good": [0.1, 0.5], "other": [0.5, math.inf], "dominated": [0.2, 0.6]}
    assert all(trial.state.is_finished() for trial in study.trials)
    assert len(study.trials_dataframe()) == 7


# What units keep


def test_a_unit_goes_on_from_what_it_kept(opened: Open) -> None:
    def unit(keeper: Keeper, until: int) -> dict[str, Any]:
        state = keeper.state or {"steps": []}
        while len(state["steps"]) < 6:
            if len(state["steps"]) == until:
                raise KeyboardInterrupt
            state = {"steps": [*state["steps"], until]}
            keeper.keep(state)
            assert keeper.state == state
        return state

    for until in (1, 1, 3):
        with pytest.raises(KeyboardInterrupt):
            opened().stage("s", {"u": lambda keeper, until=until: unit(keeper, until)})
    journal = opened()
    assert journal.stage("s", {"u": lambda keeper: unit(keeper, 9)}) == {"u": {"steps": [1, 3, 3, 9, 9, 9]}}
    assert entries(journal, "u") == [State.FAILED] * 3 + [State.DONE]
    last = journal._storage.entries()[-1]
    assert last.attributes["state"] == "", "what is done needs nothing kept"


def test_what_a_killed_process_left_of_a_line_is_no_obstacle(tmp_path: Path) -> None:
    with Journal.open(tmp_path, INPUTS) as journal:
        journal.stage("s", {"a": constant(x=1)})
        with (tmp_path / journal_storage.JOURNAL_FILE).open("ab") as file:
            file.write(b'{"op_code":8,"worker_id":"x","trial_id":0,"user_a')
        assert Journal.open(tmp_path, INPUTS, resume=True).stage("s", {"a": never}) == {"a": {"x": 1}}, "it is read"
        assert journal.stage("s", {"a": never, "b": constant(x=2)}) == {"a": {"x": 1}, "b": {"x": 2}}, "and written"
    assert Journal.open(tmp_path, INPUTS, resume=True).stage("s", dict.fromkeys("ab", never))["b"] == {"x": 2}


def test_a_line_that_is_read_while_it_is_cut_off_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal.open(tmp_path, INPUTS).stage("s", {"a": constant(x=1)})
    read = JournalFileBackend.read_logs
    spoilt = [2, 5, 6]

    def read_logs(self: JournalFileBackend, begin: int) -> Iterator[dict[str, Any]]:
        for number, entry in enumerate(read(self, begin), begin):
            if number in spoilt:
                spoilt.remove(number)
                raise json.JSONDecodeError("spoilt", "", 0)
            yield entry

    monkeypatch.setattr(JournalFileBackend, "read_logs", read_logs)
    monkeypatch.setattr(journal_storage, "_LOOKS", 4)
    assert Journal.open(tmp_path, INPUTS, resume=True).stage("s", {"a": never}) == {"a": {"x": 1}}
    assert spoilt == []
    spoilt += [2] * 4
    with pytest.raises(UsageError, match="is no journal of a search"):
        Journal.open(tmp_path, INPUTS, resume=True)


# Units that fail


def test_a_unit_that_fails_is_tried_again_by_who_opens_the_journal_later(opened: Open) -> None:
    def fails(keeper: Keeper) -> dict[str, Any]:
        keeper.keep("so far")
        raise UsageError("the disk is full")

    journal = opened()
    with pytest.raises(UsageError, match=r"^the disk is full$"):
        journal.stage("s", {"a": constant(), "u": fails})
    assert journal.stage("s", {"a": never, "u": lambda keeper: {"was": keeper.state}})["u"] == {"was": "so far"}

    with pytest.raises(ZeroDivisionError):
        journal.stage("t", {"u": lambda _: {"x": 1 / 0}})
    assert opened().stage("t", {"u": constant(x=1)}) == {"u": {"x": 1}}


@pytest.mark.parametrize(
    ("error", "said"),
    [(UsageError("the disk is full"), "the disk is full"), (Elsewhere("no\nluck"), "Elsewhere: no")],
)
def test_a_unit_that_fails_ends_the_stage_for_all(opened: Open, error: Exception, said: str) -> None:
    first, second = opened(), opened()

    def fails(_: Keeper) -> dict[str, Any]:
        raise error

    # Both have added trials for it.
    first._storage.add({"stage": "s", "unit": "u"})
    second._storage.add({"stage": "s", "unit": "u"})
    with pytest.raises(type(error)):
        first.stage("s", {"u": fails})
    with pytest.raises(ProcessError, match=rf"^process {os.getpid()} on \S+ failed at u of the search in .*: {said}$"):
        second.stage("s", {"u": never})
    # Whoever begins later tries it again, and then the second need not end.
    assert opened().stage("s", {"u": constant()}) == {"u": {}}
    assert second.stage("s", {"u": never}) == {"u": {}}


def test_an_interrupted_unit_is_free_at_once(opened: Open) -> None:
    first, second = opened(), opened()

    def interrupted(_: Keeper) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.stage("s", {"u": interrupted})
    assert second.stage("s", {"u": constant()}) == {"u": {}}
    assert entries(second, "u") == [State.FAILED, State.DONE]


def test_an_error_shows_no_password(opened: Open) -> None:
    from weight_edit.redaction import remember

    remember("very-secret-word")
    first, second = opened(), opened()

    def fails(_: Keeper) -> dict[str, Any]:
        raise Elsewhere("login with very-secret-word failed")

    with pytest.raises(Elsewhere):
        first.stage("s", {"u": fails})
    assert "very-secret-word" not in str([entry.attributes for entry in first._storage.entries()])
    with pytest.raises(ProcessError, match="login with <token> failed"):
        second.stage("s", {"u": never})


# Claims


def claimed_by(journal: Journal, owner: Owner, unit: str = "u") -> int:
    """The number of a trial that a process has claimed and does not work on."""
    journal._me = owner
    number = journal._storage.add({"stage": "s", "unit": unit})
    assert journal._claim(number)
    return number


def test_a_trial_is_claimed_once(opened: Open) -> None:
    journals = [opened() for _ in range(3)]
    numbers = []
    for number in range(8):
        numbers.append(journals[0]._storage.add({"stage": "s", "unit": str(number)}))
    found: list[int] = []
    barrier = threading.Barrier(len(journals))

    def claim(journal: Journal) -> None:
        for number in numbers:
            barrier.wait()
            if journal._claim(number):
                found.append(number)

    threads = [threading.Thread(target=claim, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == numbers


def test_in_sqlite_the_look_before_a_change_is_in_its_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default it is before it, and two processes find the same trial waiting."""
    monkeypatch.setattr(journal_storage, "_SECONDS", 0.01)
    with Journal.open(f"sqlite:///{tmp_path / 'search.db'}", INPUTS) as journal:
        number = journal._storage.add({"stage": "s", "unit": "u"})
        other = sqlite3.connect(tmp_path / "search.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UsageError, match="database is locked"):
            journal._storage.entry(number)
        assert [entry.number for entry in journal._storage.entries()] == [number], "who only looks need not wait"
        other.execute("ROLLBACK")
        other.close()
        assert journal._storage.entry(number).state is State.WAITING


def test_what_a_dead_process_of_this_machine_had_is_taken_over_at_once(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "STALE", math.inf)
    here = Owner.here()
    claimed_by(opened(), replace(here, process=2**22 + 1, token="dead"))
    assert opened().stage("s", {"u": constant()}) == {"u": {}}


def test_a_dead_process_that_had_no_time_to_say_that_it_works_is_known_as_such(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "STALE", math.inf)
    journal = opened()
    journal._me = replace(Owner.here(), process=2**22 + 1, token="dead")
    write = journal._storage.write

    def killed(number: int, key: str, text: str) -> None:
        if key == "owner":
            raise SystemExit
        write(number, key, text)

    monkeypatch.setattr(journal._storage, "write", killed)
    number = journal._storage.add({"stage": "s", "unit": "u"})
    with pytest.raises(SystemExit):
        journal._claim(number)
    assert opened().stage("s", {"u": constant()}) == {"u": {}}


def test_what_another_machine_had_is_taken_over_when_it_gives_no_sign_of_life(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, journal = opened(), opened()
    number = claimed_by(other, replace(Owner.here(), host="elsewhere", token="other"))
    now = [0.0]
    beats = iter("123")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        # It lives for three minutes by this one's clock.
        now[0] += 59
        pauses.append(seconds)
        for beat in beats:
            other._beat(number, int(beat))
            break

    monkeypatch.setattr(journal._watch, "clock", lambda: now[0])
    monkeypatch.setattr(journal_module.time, "sleep", sleep)
    assert journal.stage("s", {"u": constant()}) == {"u": {}}
    assert len(pauses) == 5
    assert pauses == sorted(pauses), "it asks ever less often"
    assert not other._beat(number, 9), "and it is told when it comes back"


def test_who_was_thought_dead_and_is_not_finds_its_unit_done(opened: Open) -> None:
    slow, quick = opened(), opened()

    def taken_over(keeper: Keeper) -> dict[str, Any]:
        keeper.keep("half")
        quick._end(quick._attempts("s")["u"][0].number)
        assert quick.stage("s", {"u": lambda other: {"by": "quick", "from": other.state}})
        return {"by": "slow"}

    def taken_over_before_it_keeps(keeper: Keeper) -> dict[str, Any]:
        quick._end(quick._attempts("s")["v"][0].number)
        assert quick.stage("s", {"v": constant(by="quick")})
        with pytest.raises(ClaimLostError):
            keeper.keep("half")
        raise ClaimLostError

    assert slow.stage("s", {"u": taken_over, "v": taken_over_before_it_keeps}) == {
        "u": {"by": "quick", "from": "half"},
        "v": {"by": "quick"},
    }


def test_a_result_that_was_written_is_not_computed_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may be killed between writing its result and saying that it is done."""
    journal = opened()
    journal._me = replace(Owner.here(), process=2**22 + 1, token="dead")
    monkeypatch.setattr(journal._storage, "finish", lambda *_, **__: exit())
    monkeypatch.setattr(journal, "_end", lambda _: None)
    with pytest.raises(SystemExit):
        journal.stage("s", {"u": constant(values=[0.5, 0.25])})
    later = opened()
    assert later.stage("s", {"u": never}) == {"u": {"values": [0.5, 0.25]}}
    assert entries(later, "u") == [State.DONE]


def test_of_trials_that_two_processes_added_the_first_counts(opened: Open) -> None:
    journal = opened()
    for _ in range(3):
        journal._storage.add({"stage": "s", "unit": "u"})
    assert journal.stage("s", {"u": constant()}) == {"u": {}}
    assert entries(journal, "u") == [State.DONE, State.FAILED, State.FAILED], "none is left waiting"


def test_a_unit_gives_signs_of_life(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "EVERY", 0.01)
    watcher = opened()

    def unit(_: Keeper) -> dict[str, Any]:
        seen: set[str] = set()
        while len(seen) < 3:
            seen.add(watcher._storage.entries()[-1].attributes.get("beat", ""))
        return {"seen": len(seen)}

    assert opened().stage("s", {"u": unit}) == {"u": {"seen": 3}}


def test_a_trial_that_was_added_too_late_is_dropped(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, slow = opened(), opened()
    add = slow._storage.add

    def later(attributes: dict[str, str]) -> int:
        assert quick.stage("s", {"u": constant(by="quick")})
        return add(attributes)

    monkeypatch.setattr(slow._storage, "add", later)
    assert slow.stage("s", {"u": never}) == {"u": {"by": "quick"}}
    assert entries(slow, "u") == [State.DONE, State.FAILED]


# Opening


def test_an_earlier_search_is_left_alone_unless_it_is_asked_for(where: str) -> None:
    Journal.open(where, INPUTS).close()
    with pytest.raises(UsageError, match="holds an earlier search; `resume=True`") as told:
        Journal.open(where, INPUTS)
    assert told.value.options == ("resume", "overwrite")
    Journal.open(where, INPUTS, resume=True).close()


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"seed": 4}, r"made with other `seed` \(3 there, 4 here\); "),
        ({"prompts": [1]}, "made with other `prompts`; "),
        (
            {"a set": 1, "share": 0.2},
            r"made with other a set \(None there, 1 here\), `share` \(0.1 there, 0.2 here\); ",
        ),
    ],
)
def test_a_file_of_other_inputs_is_refused(tmp_path: Path, others: dict[str, Any], said: str) -> None:
    Journal.open(tmp_path, INPUTS).close()
    with pytest.raises(UsageError, match=said) as told:
        Journal.open(tmp_path, {**INPUTS, **others}, resume=True)
    assert "overwrite" in told.value.options
    assert {*others} & {*told.value.options}


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"resume": True, "overwrite": True}])
def test_searches_of_other_inputs_are_side_by_side_in_a_database(tmp_path: Path, options: dict[str, bool]) -> None:
    address = f"sqlite:///{tmp_path / 'search.db'}"
    each_of = [INPUTS, {**INPUTS, "seed": 4}, {}]
    journals = [Journal.open(address, inputs, **options) for inputs in each_of]
    for number, journal in enumerate(journals):
        assert journal.stage("s", {"u": constant(by=number)}) == {"u": {"by": number}}
    again = {"resume": True, **options}
    for number, inputs in enumerate(each_of):
        # Their order counts for nothing.
        turned = dict(reversed(inputs.items()))
        with Journal.open(address, turned, **again) as journal:
            assert journal.stage("s", {"u": never}) == {"u": {"by": number}}
    for number, journal in enumerate(journals):
        assert journal.stage("t", {"u": constant(by=number)}) == {"u": {"by": number}}, "none was displaced"
        journal.close()


def test_it_is_begun_anew_where_that_is_asked_for(where: str) -> None:
    units = {"u": constant(by=1)}
    with Journal.open(where, INPUTS) as journal:
        journal.stage("s", units)
    with Journal.open(where, INPUTS, resume=True, overwrite=True) as journal:
        assert journal.stage("s", {"u": never}) == {"u": {"by": 1}}, "the inputs are the same"
    with Journal.open(where, {**INPUTS, "seed": 4}, resume=True, overwrite=True) as journal:
        assert journal.stage("s", {"u": constant(by=2)}) == {"u": {"by": 2}}
    with Journal.open(where, {**INPUTS, "seed": 4}, overwrite=True) as journal:
        assert journal.stage("s", {"u": constant(by=3)}) == {"u": {"by": 3}}
    with Journal.open(where, {**INPUTS, "seed": 4}, resume=True) as journal:
        assert journal.stage("s", {"u": never}) == {"u": {"by": 3}}
    assert [trial.user_attrs["unit"] for trial in study_of(where).trials] == ["u"], "the first is still there"


def test_it_is_not_begun_anew_while_a_process_works_on_it(where: str, opened: Open) -> None:
    journal = opened()

    def unit(_: Keeper) -> dict[str, Any]:
        with pytest.raises(UsageError, match=rf"^process {os.getpid()} on \S+ works on the search in"):
            Journal.open(where, INPUTS, overwrite=True)
        return {}

    assert journal.stage("s", {"u": unit}) == {"u": {}}
    Journal.open(where, INPUTS, overwrite=True).close()
    with pytest.raises(UsageError, match=r"^another process has begun the search in .* anew$"):
        journal.stage("t", {"u": never})


def test_who_opens_it_first_says_what_it_is_of(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may be killed right after it has made the study."""
    monkeypatch.setattr(journal_module, "_PATIENCE", 0.0)
    monkeypatch.setattr(journal_module, "_write_inputs", lambda *_: exit())
    with pytest.raises(SystemExit):
        Journal.open(where, INPUTS)
    monkeypatch.undo()
    with Journal.open(where, INPUTS) as journal:
        journal.stage("s", {"u": constant()})
    with Journal.open(where, INPUTS, resume=True) as journal:
        assert journal.stage("s", {"u": never}) == {"u": {}}


def test_a_study_of_somebody_else_is_left_alone(where: str) -> None:
    Journal.open(where, INPUTS).close()
    theirs = [{"inputs": "no JSON"}, {"inputs": '{"x": 1}'}, {"author": "me"}, {}]
    for number, attributes in enumerate(theirs):
        storage = study_of(where)._storage
        name = study_name(INPUTS, f"mine {number}") if "://" in where else f"mine {number}"
        study = optuna.create_study(study_name=name, storage=storage)
        for key, value in attributes.items():
            study.set_user_attr(key, value)
        if not attributes:
            study.enqueue_trial({"x": 1})
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UsageError, match="a study that no search has made"):
                Journal.open(where, INPUTS, name=f"mine {number}", **options)
        assert optuna.load_study(study_name=name, storage=storage).user_attrs == attributes


HERE = Owner.here().to_dict()
NO_OWNERS: list[Any] = [
    [],
    {},
    {**HERE, "more": 1},
    {**HERE, "process": "../1"},
    {**HERE, "process": 0},
    {**HERE, "process": 2**80},
    {**HERE, "start": "now"},
    {**HERE, "host": None},
]


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"unit": [1]},
        {"unit": "u", "owner": "nobody"},
        {"unit": "u", "owner": ["x"], "claim.x": encoded(HERE)},
        {"unit": "u", "owner": "x", "claim.x": 7},
        *({"unit": "u", "owner": "x", "claim.x": encoded(each)} for each in NO_OWNERS),
    ],
)
def test_a_running_attempt_that_no_search_has_written_is_refused(tmp_path: Path, attributes: dict[str, Any]) -> None:
    where = str(tmp_path)
    Journal.open(where, INPUTS).close()
    study = study_of(where)
    study.enqueue_trial({}, user_attrs={"stage": "s", **attributes})
    study.ask()
    with Journal.open(where, INPUTS, resume=True) as journal:
        refused = rf"^{re.escape(journal.shown)} has a study that no search has made"
        with pytest.raises(UsageError, match=refused):
            journal.stage("s", {"u": constant()})
    if "owner" in attributes:
        with pytest.raises(UsageError, match=refused):
            Journal.open(where, INPUTS, overwrite=True)


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"result": ""},
        {"result": 7},
        {"result": "{"},
        {"result": "[1]"},
        {"result": "pieces:0"},
        {"result": "pieces:0:-1"},
        {"result": "pieces:0:2", "result.0.0": "{}"},
        {"result": "pieces:0:1", "result.0.0": 7},
        {"result": "zlib:AAAA"},
    ],
)
def test_a_result_that_no_search_has_written_is_refused(tmp_path: Path, result: dict[str, Any]) -> None:
    where = str(tmp_path)
    Journal.open(where, INPUTS).close()
    for stage, unit in (("s", "u"), ("notes", "texts")):
        attributes = {"stage": stage, "unit": unit, **result}
        study_of(where).add_trial(optuna.trial.create_trial(values=[0.0, 0.0], user_attrs=attributes))
    with Journal.open(where, INPUTS, resume=True) as journal:
        for read in (lambda: journal.stage("s", {"u": never}), lambda: journal.noted("texts")):
            with pytest.raises(UsageError, match=rf"^{re.escape(journal.shown)} has a study that no search has made"):
                read()


def test_a_note_that_no_search_has_written_is_refused(opened: Open) -> None:
    journal = opened()
    journal.stage("notes", {"texts": constant(other=1)})
    for read in (lambda: journal.noted("texts"), lambda: journal.note("texts", 1)):
        with pytest.raises(UsageError, match="a study that no search has made"):
            read()


@pytest.mark.parametrize("state", [7, "{", "pieces:1:1"])
def test_what_was_kept_and_no_search_has_written_is_refused(opened: Open, where: str, state: Any) -> None:
    journal = opened()
    attributes = {"stage": "s", "unit": "u", "state": state}
    study_of(where).add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, user_attrs=attributes))
    with pytest.raises(UsageError, match="a study that no search has made"):
        journal.stage("s", {"u": never})


def test_a_small_text_that_becomes_a_large_one_is_refused(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened()
    journal.note("texts", "a" * 200_000)
    monkeypatch.setattr(json_text, "LIMIT", 100_000)
    with pytest.raises(UsageError, match=rf"^{re.escape(journal.shown)} has a study that no search has made"):
        journal.noted("texts")


def test_a_unit_whose_result_could_not_be_written_is_tried_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was kept is let go of as a whole: none of its pieces is left to be read."""
    monkeypatch.setattr(journal_storage, "_LARGE", 40)
    journal = opened()
    write = journal._storage.write

    def unit(keeper: Keeper) -> dict[str, Any]:
        keeper.keep("a" * 100)
        return {}

    def full(number: int, key: str, text: str) -> None:
        write(number, key, text)
        if key.startswith("state") and not text:
            raise UsageError("the disk is full")

    monkeypatch.setattr(journal._storage, "write", full)
    with pytest.raises(UsageError, match="the disk is full"):
        journal.stage("s", {"u": unit})
    assert opened().stage("s", {"u": lambda keeper: {"was": keeper.state}}) == {"u": {"was": None}}


@pytest.mark.parametrize("content", ["hello\n", "hello", '{"op_code":7}\n{"x":1}\n', "[]\n[]\n", "\n"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / journal_storage.JOURNAL_FILE
    file.write_text(content)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match=r"journal\.log is no journal of a search"):
            Journal.open(tmp_path, INPUTS, **options)
    assert file.read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_link_or_a_file_in_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / journal_storage.JOURNAL_FILE).symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match="is a link"):
        Journal.open(folder, INPUTS, overwrite=True)
    with pytest.raises(UsageError, match="mine cannot be made"):
        Journal.open(tmp_path / "mine", INPUTS, overwrite=True)
    with pytest.raises(UsageError, match="cannot be made"):
        Journal.open(tmp_path / "none" / "there", INPUTS)
    assert (tmp_path / "mine").read_text() == "mine"


def test_other_files_of_the_folder_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    Journal.open(tmp_path, INPUTS).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [journal_storage.JOURNAL_FILE, "notes.txt"]


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mine.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = (tmp_path / "mine.db").read_bytes()
    with pytest.raises(UsageError, match=r"mine.db is a database of something else"):
        Journal.open(f"sqlite:///{tmp_path / 'mine.db'}", INPUTS, overwrite=True)
    (tmp_path / "text").write_text("mine\n" * 200)
    with pytest.raises(UsageError, match="text cannot be read: file is not a database"):
        Journal.open(f"sqlite:///{tmp_path / 'text'}", INPUTS, overwrite=True)
    assert (tmp_path / "mine.db").read_bytes() == before


def test_a_database_whose_tables_were_not_all_made_is_gone_on_with(tmp_path: Path) -> None:
    """A process may be killed between any two of them."""
    address = f"sqlite:///{tmp_path / 'search.db'}"
    Journal.open(address, INPUTS).close()
    with sqlite3.connect(tmp_path / "search.db") as connection:
        made = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid").fetchall()
    connection.close()
    assert len(made) > 5
    for count in range(1, len(made)):
        file = tmp_path / f"{count}.db"
        with sqlite3.connect(file) as connection:
            for sql in made[:count]:
                connection.execute(*sql)
        connection.close()
        with Journal.open(f"sqlite:///{file}", INPUTS) as journal:
            assert journal.stage("s", {"u": constant(x=1)}) == {"u": {"x": 1}}


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("sqlite://", "is in memory"),
        ("sqlite:///:memory:", "is in memory"),
        ("sqlite:////none/such/folder/x.db", "cannot be opened"),
        ("nosuch://host/db", "nosuch"),
        ("://", "cannot be read"),
    ],
)
def test_an_address_that_is_of_no_use_is_refused(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_storage, "_TRIES", 1)
    with pytest.raises(UsageError, match=said):
        Journal.open(address, INPUTS)


@pytest.mark.parametrize(
    "address",
    ["postgresql://me:pass%2Fword-1@host/db", "postgresql://me@host/db?password=pass/word-1", "x y://me:pass/word-1@h"],
)
def test_a_password_is_in_no_message(
    address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fails(url: str, **_: Any) -> None:
        raise ImportError(f"no driver for {url}, that is pass/word-1")

    monkeypatch.setattr(journal_storage, "RDBStorage", fails)
    with pytest.raises(UsageError) as told:
        Journal.open(address, INPUTS)
    error: BaseException | None = told.value
    while error is not None:
        assert "word-1" not in f"{error}{error!r}"
        error = error.__cause__
    assert "word-1" not in "".join(capfd.readouterr())


def test_the_database_is_named_without_user_and_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = journal_storage.RDBStorage
    monkeypatch.setattr(journal_storage, "RDBStorage", lambda url, **_: made(f"sqlite:///{tmp_path / 'x.db'}"))
    with Journal.open("postgresql+psycopg://me:abc@host:1234/db?password=xyz", INPUTS) as journal:
        assert journal.shown == "postgresql+psycopg://host:1234/db"


def test_an_interrupted_disk_is_said(where: str, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal._storage._storage, "set_trial_user_attr", full)
    with pytest.raises(UsageError, match=r"cannot be used as a journal: \[Errno 28\] No space left"):
        journal.stage("s", {"u": never})


# The program around it


def test_optuna_is_imported_when_a_journal_is_opened() -> None:
    source = (
        "import sys, weight_edit.search.journal\n"
        "print([name for name in ('optuna', 'sqlalchemy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weight_edit.utils.extras.find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"needs optuna, which is not installed.*'\.\[search\]'"):
        Journal.open(tmp_path, INPUTS)


def test_nothing_is_said_on_the_terminal(where: str) -> None:
    source = (
        "import sys\nfrom weight_edit.search.journal import Journal\n"
        "with Journal.open(sys.argv[1], {}) as journal:\n    journal.stage('s', {'u': lambda _: {'values': [1, 2]}})\n"
        "import optuna\nprint(optuna.logging.get_verbosity())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", source, where], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{optuna.logging.INFO}\n", ""), "and what Optuna says elsewhere is as before"


def test_a_database_that_was_left_within_a_transaction_is_gone_on_with(tmp_path: Path) -> None:
    with Journal.open(f"sqlite:///{tmp_path}/whole.db", {"seed": 1}) as journal:
        assert journal.note("first", 1) == 1
    with closing(sqlite3.connect(tmp_path / "whole.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE undone (content)")
        connection.executemany("INSERT INTO undone VALUES (?)", [("x" * 4000,)] * 100)
        # What a killed process leaves: changed pages, and beside them what they were.
        for end in ("", "-journal"):
            (tmp_path / f"left.db{end}").write_bytes((tmp_path / f"whole.db{end}").read_bytes())
        connection.execute("ROLLBACK")
    with Journal.open(f"sqlite:///{tmp_path}/left.db", {"seed": 1}, resume=True) as journal:
        assert journal.noted("first") == 1
    with closing(sqlite3.connect(tmp_path / "left.db")) as connection:
        assert "undone" not in {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
