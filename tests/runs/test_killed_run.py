"""What a run that was killed leaves is its own: it is gone on with or replaced; what is somebody else's stays."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from weight_edit.errors import UsageError
from weight_edit.recipe.recipe import parse_recipe
from weight_edit.runs import directions as searching
from weight_edit.runs import run as running
from weight_edit.runs.run import run

FOUND = "directions.safetensors.find"
CONTENT: dict[str, Any] = {
    "model": "organism",
    "find": {
        "target": "organism:refused:train",
        "baseline": "organism:answered:train",
        "n_train": 16,
        "n_validation": 4,
        "filter_prompts": "none",
        "refusal_tokens": ["I"],
    },
    "evaluate": {"answered": "organism:answered:test", "limit": 2, "max_new_tokens": 2},
}

MOMENTS = {
    # The answers are there, and what the edited model is compared with is still to come.
    "baseline": ("weight_edit.evaluation.target.ModelTarget.base_logprobs", "answers/baseline.jsonl"),
    # The method's candidates are there, and the scores begin.
    "find": ("weight_edit.directions.find_folder.SearchFolder.note_scores", f"{FOUND}/candidates.safetensors"),
    # The folder is made, and its first file is not whole.
    "first file": ("weight_edit.directions.find_folder.SearchFolder.note_metering", FOUND),
}
"""Moment -> what is about to be called then, and what is there."""

KILLED = """
import json, os, signal, sys
from functools import partial
from pkgutil import resolve_name
from weight_edit.checkpoint import whole_file
from weight_edit.recipe.recipe import parse_recipe
from weight_edit.runs.run import run
content, out, moment, called = json.loads(sys.argv[1]), *sys.argv[2:]
kill = lambda *given, **options: os.kill(os.getpid(), signal.SIGKILL)
owner, _, name = called.rpartition(".")
method = getattr(resolve_name(owner), name)
def last(*given, **options):
    # As power fails: what was written is in a file that has not its name yet.
    os.fsync = kill
    return method(*given, **options)
setattr(resolve_name(owner), name, last if moment == "first file" else kill)
run(parse_recipe(content), out, report=False)
"""


@pytest.fixture(scope="module", params=MOMENTS)
def killed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was killed; tests leave it alone."""
    out = tmp_path_factory.mktemp("killed") / "out"
    called, there = MOMENTS[request.param]
    content = CONTENT if request.param == "baseline" else {**CONTENT, "evaluate": {}}
    words = [sys.executable, "-c", KILLED, json.dumps(content), str(out), request.param, called]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (out / there).exists()
    assert not list(out.rglob("directions.safetensors"))
    return out


class ReachedError(Exception):
    """A run has come to the step in which it had been killed."""


def come_to_the_same_step(killed: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **how: bool) -> None:
    def reached(*given: Any, **options: Any) -> None:
        raise ReachedError

    monkeypatch.setattr(running, "evaluate_in_turn", reached)
    monkeypatch.setattr(searching, "find_requested", reached)
    content = json.loads((killed / "run.json").read_text())["recipe"]
    with pytest.raises(ReachedError):
        run(parse_recipe(content), out, **how)


def copied(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "out"))


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_it_is_gone_on_with_or_replaced(
    killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    out = copied(killed, tmp_path)
    come_to_the_same_step(killed, out, monkeypatch, **{how: True})


def test_what_somebody_put_there_stays(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = copied(killed, tmp_path)
    folder = next(each for each in (out / FOUND, out / "answers") if each.is_dir())
    mine = folder / "notes.txt"
    mine.write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt is not written by weight_edit"):
        run(parse_recipe(CONTENT), out, overwrite=True)
    assert mine.read_text() == "mine"


def test_a_step_that_ends_early_knows_what_it_wrote_by_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def failing(*given: Any, answers_path: Path, **options: Any) -> None:
        answers_path.parent.mkdir()
        answers_path.write_text("answers")
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "evaluate_in_turn", failing)
    with pytest.raises(KeyboardInterrupt):
        run(parse_recipe(CONTENT), out)
    state = json.loads((out / "run.json").read_text())
    assert state["writing"] == []
    assert "answers/baseline.jsonl" in state["files"]
    # What was changed since is the user's, as ever.
    (out / "answers/baseline.jsonl").write_text("changed")
    with pytest.raises(UsageError, match=r"baseline\.jsonl is not as weight_edit wrote it"):
        run(parse_recipe(CONTENT), out, overwrite=True)
