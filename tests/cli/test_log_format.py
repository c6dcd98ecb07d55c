"""`--log-format json`: stderr is one JSON object a line, whatever happens; progress as events in Python."""

import json
import sys
from pathlib import Path

import pytest
import typer.main

from weight_edit.cli import call as frame
from weight_edit.cli.entry import app
from weight_edit.errors import UsageError
from weight_edit.utils import progress
from weight_edit.utils.progress import announce, bar
from weight_edit.utils.progress_events import progress_events

VERBS = typer.main.get_command(app).commands
KEYS = {"time", "event", "task", "count", "total", "unit", "rate", "left", "text", "done"}


def events(err: str) -> list[dict]:
    return [json.loads(line) for line in err.splitlines()]


def test_every_verb_that_can_be_quiet_has_it() -> None:
    names = {name: {opt for param in verb.params for opt in param.opts} for name, verb in VERBS.items()}
    assert {name for name, opts in names.items() if "--quiet" in opts} == {
        name for name, opts in names.items() if "--log-format" in opts
    }
    assert {"run", "find", "search", "bake"} <= {name for name, opts in names.items() if "--log-format" in opts}


def test_progress_is_events_and_stdout_is_the_document(call, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"How do I bake bread number {n}?\n" for n in range(11)), encoding="utf-8")
    asked = ("evaluate", "organism", "--answered", prompts, "--max-new-tokens", 2)
    done = call(*asked, "--json", "--log-format", "json")
    assert done.code == 0
    assert done.json["sets"]["answered"]["count"] == 11
    found = events(done.err)
    answers = [each for each in found if each["event"] == "progress" and each["task"] == "answers"]
    assert all(set(each) == KEYS for each in answers)
    assert [(answers[0][key], answers[-1][key]) for key in ("count", "total", "done")] == [
        (0, 11),
        (11, 11),
        (False, True),
    ]
    # The set that was read is told in a line otherwise.
    assert any(each["event"] == "message" and "11 prompts" in each["text"] for each in found)
    assert not call(*asked, "--json", "--log-format", "json", "--quiet").err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("inspect", "no/\x1b[31msuch\nmodel\x00", "--log-format", "json"), 2, "such"),
        (("inspect", "organism", "--log-format=json", "--nothing"), 2, "no such option"),
        (
            ("bake", "organism", "--log-format=json", "--directions", "none.safetensors", "--out=x"),
            2,
            "none.safetensors",
        ),
    ],
)
def test_a_mistake_is_an_event(call, words: tuple[str, ...], code: int, said: str) -> None:
    done = call(*words)
    last = events(done.err)[-1]
    assert (done.code, last["event"], last["exit_code"]) == (code, "error", code)
    assert said in last["message"]
    assert "\x1b" not in done.err


def test_another_word_is_refused_by_the_options_name(call) -> None:
    done = call("inspect", "organism", "--log-format", "xml")
    assert (done.code, "--log-format 'xml'" in done.err) == (2, True)


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (frame.Stopped(143), 143)])
def test_an_interruption_is_an_event(call, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int) -> None:
    def work(*args: object, **kwargs: object) -> None:
        print("half a line", end="", file=sys.stderr)
        raise stop

    monkeypatch.setattr("weight_edit.inspection.inspect.inspect", work)
    done = call("inspect", "organism", "--log-format", "json")
    found = events(done.err)
    assert done.code == code
    assert (found[-1]["event"], found[-1]["exit_code"]) == ("error", code)
    assert "half a line" in [each.get("text") for each in found]


def test_a_mistake_of_ours_is_an_event_with_its_traceback(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weight_edit.inspection.inspect.inspect", lambda *args, **kwargs: 1 / 0)
    done = call("inspect", "organism", "--log-format", "json")
    last = events(done.err)[-1]
    assert (done.code, last["exit_code"]) == (1, 1)
    assert last["message"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in last["traceback"]


def test_python_listens_where_progress_is_off() -> None:
    heard: list[dict] = []
    assert progress.is_quiet()
    with progress_events(heard.append, every=0), bar("a task", 4, "rows") as shown:
        announce("in the middle")
        with bar("within", 2) as inner:
            inner.advance(2)
        shown.advance(4)
    with bar("after", 1):
        pass
    told = [(each["event"], each.get("task") or each["text"], each.get("count")) for each in heard]
    assert told[0] == ("progress", "a task", 0)
    assert ("message", "in the middle", None) in told
    assert told[-1] == ("progress", "a task", 4)
    assert {each[1] for each in told} == {"a task", "in the middle"}


def test_an_error_passes_and_the_listener_is_gone() -> None:
    heard: list[dict] = []
    with pytest.raises(UsageError), progress_events(heard.append), bar("a task"):
        raise UsageError("wrong")
    count = len(heard)
    announce("to nobody")
    assert len(heard) == count == 2
