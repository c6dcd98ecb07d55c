"""The page, built and not served: hostile texts in every place stay texts, and buttons start what is shown."""

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.helpers.parsed_html import ParsedHtml
from weight_edit.directions.file import read_rows
from weight_edit.search.owner import Owner
from weight_edit.ui.commands import find_command, job_words, search_command, shell_line
from weight_edit.ui.conversation import HOOKS, Conversation
from weight_edit.ui.figures import certificates
from weight_edit.ui.frame import Frame, Shown
from weight_edit.ui.jobs import COMMAND, LOG, RESULT
from weight_edit.ui.page import STEPS, standing
from weight_edit.ui.project import new_project, open_run, read_project
from weight_edit.ui.server import page_app
from weight_edit.ui.settings import Settings, public_prompts
from weight_edit.ui.steps.edit import edit_command

gradio = pytest.importorskip("gradio")

EVIL = "<img src=x onerror=alert(1)></pre><script>alert(2)</script>${alert(3)}{{x}}\x1b]0;t\x07\"'"

TAGS = {
    *(
        "p",
        "pre",
        "div",
        "dl",
        "dt",
        "dd",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "h2",
        "h3",
        "ul",
        "li",
    ),
    *("progress", "figure", "figcaption", "svg", "line", "circle", "text", "a", "iframe"),
}


@cache
def built() -> Frame:
    """The page's frame, which is the same for every folder and takes a while to build."""
    with gradio.Blocks(analytics_enabled=False):
        frame = Frame(Path())
        for name, build in STEPS:
            with gradio.Tab(name) as frame.tab:
                build(frame)
        frame.wire()
    return frame


def framed(folder: Path) -> Frame:
    """The page's frame over a folder of projects."""
    frame = built()
    frame.folder = folder
    return frame


def add_job(folder: Path, number: int, verb: str, result: Any, out: Path | None = None) -> None:
    """A job that is done."""
    path = folder / "jobs" / f"{number:03d}-{verb}"
    path.mkdir(parents=True)
    entry = {"words": [verb, EVIL], "out": out and str(out), "began": float(number), "process": None}
    (path / COMMAND).write_text(json.dumps(entry))
    (path / RESULT).write_text(json.dumps(result))
    (path / LOG).write_text(EVIL + "\n" + json.dumps({"event": "step", "step": EVIL, "state": EVIL}))


def everywhere(value: Any) -> Any:
    """The value with its texts made evil."""
    if isinstance(value, dict):
        return {key: everywhere(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [everywhere(entry) for entry in value]
    return EVIL if isinstance(value, str) else value


def rendered(frame: Frame, folder: Path) -> str:
    project = read_project(folder)
    assert project is not None
    shown = [view.render(project).get("value") for view in frame.views if isinstance(view.component, gradio.HTML)]
    return "\n".join(each for each in shown if isinstance(each, str))


RATE = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 5, "total": 10}
RESULTS = {
    "inspect": {
        "supported": True,
        "anatomy": {"architecture": "a", "d_model": "x", "blocks": []},
        "proof": {"leak": 1e-8},
    },
    "plan": {
        "device": "cpu",
        "notes": ["n"],
        "steps": [{"name": "a", "what": "b", "seconds": {"low": 1.0, "high": 3.0}}],
        "total": {"seconds": {"low": 1.0, "high": 3.0}},
        "memory": {"total": 5e8},
    },
    "find": {
        "layer": 3,
        "position": -1,
        "method": "m",
        "warnings": ["w"],
        "scores": [{"layer": 3, "position": -1, "rejected": None, "bypass": 1.0}, {"layer": "x", "rejected": "no"}],
    },
    "search": {
        "warnings": ["w"],
        "candidates": "c",
        "picked": {"reason": "r", "point": {"digest": "d"}},
        "front": [
            {
                "digest": "d",
                "origin": "o",
                "cheap": {"validation": {"damage": damage}},
                "judged": {"sets": {"refused": {"refusal": {"64": RATE}}}},
            }
            for damage in (1e-4, 1e-2)
        ],
    },
    "verify": {"passed": False, "integrity": "x", "complete": "x", "problems": ["p"], "leak": "l"},
    "push": {"url": "u", "repo_id": "r", "files": ["f"], "private": True},
}


@pytest.mark.parametrize("way", ["find", "search"])
def test_hostile_texts_stay_texts_wherever_they_stand(tmp_path: Path, way: str) -> None:
    texts = {name: EVIL for name, value in Settings().to_dict().items() if isinstance(value, str)}
    project = new_project(tmp_path, EVIL, Settings().changed({**texts, "way": way}))
    run = project.folder / "run"
    (run / "model").mkdir(parents=True)
    (run / "model" / "README.md").write_text(EVIL + "\n![x](http://evil.example/x.png)")
    summary = {"baseline": {"sets": {"refused": {"refusal": RATE}}}, "effect": {"finding": "f"}, "edited": {}}
    (run / "run.json").write_text(json.dumps({"recipe": {}, "summary": everywhere(summary)}))
    for number, (verb, result) in enumerate(RESULTS.items(), 1):
        add_job(project.folder, number, verb, everywhere(result), project.folder / "out")
    add_job(project.folder, 10, "run", {}, run)
    add_job(project.folder, 11, "bake", {"error": EVIL, "exit_code": 2, "options": [EVIL, "model"]})
    shown = rendered(framed(tmp_path), project.folder)
    found = ParsedHtml(shown)
    assert found.names <= TAGS
    assert not found.handlers
    assert "${" not in shown
    assert "{{" not in shown
    assert "\x1b" not in shown
    assert shown.count("&lt;script&gt;") > 15


def test_a_report_is_shown_in_a_frame_without_an_origin(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    out = project.folder / "report-1"
    out.mkdir()
    (out / "report.html").write_text("<p>")
    add_job(project.folder, 1, "report", {}, out)
    shown = rendered(framed(tmp_path), project.folder)
    assert f'sandbox="allow-scripts" src="/report/{project.name}/001-report"' in shown


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], str | None]]:
    """The words and tokens of jobs that are started; none is."""
    found: list[tuple[tuple[str, ...], str | None]] = []
    monkeypatch.setattr(
        "weight_edit.ui.frame.start_job", lambda folder, words, *, out, token: found.append((tuple(words), token))
    )
    return found


def test_what_is_shown_is_what_is_started_and_a_token_is_in_no_word(tmp_path: Path, begun: list[Any]) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path)
    step = next(each for each in frame.steps if each.key == "find")
    token = "hf_" + "a" * 30
    shown = str(step.command(project))
    assert frame.start(step, project, f" {token}\n") == ""
    words, given = begun[0]
    assert "weight-edit " + " ".join(word for word in words if word not in ("--json", "--log-format", "json")) == shown
    assert given == token
    assert token not in " ".join(words)


def test_a_token_in_the_wrong_field_is_not_kept(tmp_path: Path) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path)
    values = [
        ("hf_" + "b" * 30) if name in ("model", "repo") else getattr(project.settings, name) for name in frame.fields
    ]
    assert frame.kept(project.name, values).settings == project.settings
    assert "hf_" not in (project.folder / "project.json").read_text()


def test_nothing_is_pushed_without_a_dry_run_of_the_same_words(tmp_path: Path, begun: list[Any]) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path, settings=replace(Settings(), repo="me/model"))
    model = project.folder / "model-1"
    model.mkdir()
    add_job(project.folder, 1, "bake", {}, model)
    dry, push = (next(each for each in frame.steps if each.key == key) for key in ("dry-run", "push"))

    def now(settings: Settings) -> Any:
        found = read_project(project.folder)
        assert found is not None
        return replace(found, settings=settings)

    assert "dry run" in frame.start(push, now(project.settings))
    words = dry.command(now(project.settings)).words
    path = project.folder / "jobs" / "002-push"
    path.mkdir()
    (path / COMMAND).write_text(json.dumps({"words": words, "out": None, "began": 2.0, "process": None}))
    (path / RESULT).write_text("{}")
    assert "dry run" in frame.start(push, now(replace(project.settings, private=False)))
    assert "dry run" in frame.start(push, now(replace(project.settings, repo="other/model")))
    assert begun == []
    assert frame.start(push, now(project.settings)) == ""
    assert "--dry-run" not in begun[0][0]


def test_an_error_stands_beside_the_field_that_it_is_about(tmp_path: Path) -> None:
    frame = framed(tmp_path)
    project = new_project(tmp_path, settings=replace(Settings(), target="no-such.txt"))
    add_job(project.folder, 1, "plan", {"error": "no-such.txt does not exist", "exit_code": 2})
    add_job(project.folder, 2, "find", {"error": "max_kl is -1; it must be above 0", "exit_code": 2})
    add_job(project.folder, 3, "verify", {"error": "it is not supported", "exit_code": 3, "options": ["device"]})
    project = read_project(project.folder)  # type: ignore[assignment]
    about = {
        name: frame._field_error(project, name, (name,))["value"] for name in ("target", "max_kl", "device", "baseline")
    }
    assert "no-such.txt does not" in about["target"]
    assert "above 0" in about["max_kl"]
    assert "not supported" in about["device"]
    assert about["baseline"] == ""


def test_views_that_are_as_they_were_are_left_alone(tmp_path: Path) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path)
    seen, timer, *first = frame._views(project, Shown())
    again = frame._views(project, seen)
    assert not timer.active
    assert any("value" in update for update in first)
    assert all("value" not in update and "visible" not in update for update in again[2:])


def at_work(project: Any, words: Any) -> Path:
    """A job of the project that is at work, as far as a page can tell."""
    path = project.folder / "jobs" / f"009-{words[0]}"
    path.mkdir(parents=True)
    entry = {"words": job_words(words), "out": None, "began": 9.0, "process": Owner.here().to_dict()}
    (path / COMMAND).write_text(json.dumps(entry))
    return path


def shown_by(frame: Frame, folder: Path, where: str, seen: Shown | None = None) -> dict[str, Any]:
    """The properties that a component of the page has for a project as it is now."""
    project = read_project(folder)
    assert project is not None
    updates = frame._views(project, seen or Shown())[2:]
    return next(update for view, update in zip(frame.views, updates, strict=True) if view.component.elem_id == where)


def test_the_line_beside_a_step_is_of_the_job_that_runs(tmp_path: Path) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path)
    ran = find_command(replace(project.settings, max_kl=0.3), project.folder / "find-9.safetensors")
    at_work(project, ran.words)
    shown = shown_by(frame, project.folder, "command-find")
    assert shown["value"] == str(ran)
    assert "runs now" in shown["label"]
    (project.folder / "jobs" / "009-find" / COMMAND).unlink()
    assert "find-10.safetensors" in shown_by(frame, project.folder, "command-find")["value"]


def test_a_press_runs_what_the_fields_say_then(tmp_path: Path, begun: list[Any]) -> None:
    """Prompts follow a model, also where its button is pressed before the page shows them."""
    frame, project = framed(tmp_path), new_project(tmp_path)
    find = next(each for each in frame.steps if each.key == "find")
    fields = project.settings.to_dict() | {"model": "me/model", "max_kl": 0.2}
    values = [fields[name] for name in frame.fields]
    for _ in range(2):
        # The second time the first one is kept, and the page shows as little of it.
        frame._starter(find)("", project.name, Shown(), *values)
        words, _ = begun.pop()
        assert {"me/model", "0.2", public_prompts()["target"]} <= set(words)
    changes = json.loads(frame.remodelled(project.name, Shown(), *values)[0])["changes"]
    followed = {each["name"]: (each["was"], each["becomes"]) for each in changes}
    assert followed["target"] == (Settings().target, public_prompts()["target"])
    assert followed["shown_for"] == ("organism", "me/model")
    assert "max_kl" not in followed
    # Once it shows them, the other model's prompts are a choice.
    own = dict(zip(frame.fields, values, strict=True)) | {"shown_for": "me/model", "target": Settings().target}
    frame.changed(project.name, Shown(), *(own[name] for name in frame.fields))
    assert read_project(project.folder).settings.target == Settings().target  # type: ignore[union-attr]


def test_two_events_of_a_tab_see_what_the_other_has_shown(tmp_path: Path) -> None:
    frame, project, seen = framed(tmp_path), new_project(tmp_path), Shown()
    shown_by(frame, project.folder, "command-find", seen)
    project.saved(replace(project.settings, max_kl=0.3))
    assert "0.3" in shown_by(frame, project.folder, "command-find", seen)["value"]
    read_project(project.folder).saved(Settings())  # type: ignore[union-attr]
    assert "max-kl" not in shown_by(frame, project.folder, "command-find", seen)["value"]


def test_why_a_step_was_not_started_is_said_as_long_as_it_is_so(tmp_path: Path, begun: list[Any]) -> None:
    frame, project, seen = framed(tmp_path), new_project(tmp_path), Shown()
    bake = next(each for each in frame.steps if each.key == "bake")
    values = [getattr(project.settings, name) for name in frame.fields]
    frame._starter(bake)("", project.name, seen, *values)
    seen.forget()
    assert "step 4" in shown_by(frame, project.folder, "said-bake", seen)["value"]
    found_once(project)
    assert shown_by(frame, project.folder, "said-bake", seen)["visible"] is False
    assert begun == []


def test_a_stop_is_told_of_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path)
    find = next(each for each in frame.steps if each.key == "find")
    at_work(project, ["find", "organism"])
    assert shown_by(frame, project.folder, "stop-find")["visible"] is True
    sent: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, signal: sent.append(signal))
    frame._stopper(find)(project.name, Shown())
    assert len(sent) == 1
    assert "Stopping" in shown_by(frame, project.folder, "status-find")["value"]
    assert shown_by(frame, project.folder, "stop-find")["visible"] is False


def test_a_project_is_opened_at_the_step_where_it_stands(tmp_path: Path) -> None:
    steps = framed(tmp_path).steps
    numbers = {step.key: place for place, step in enumerate(steps, 1)}
    project = new_project(tmp_path)
    assert standing(steps, numbers, project) == 1
    assert standing(steps, numbers, replace(project, opened=tmp_path)) == numbers["bake"]
    for number, verb in enumerate(("find", "verify", "run", "who knows"), 1):
        add_job(project.folder, number, verb, {})
        found = read_project(project.folder)
        assert found is not None
        assert standing(steps, numbers, found) == numbers[{"run": "bake", "who knows": "bake"}.get(verb, verb)]


def found_once(project: Any, *, layer: int = 3) -> Any:
    """The project with a find that is done."""
    path = project.folder / "find-1.safetensors"
    tensors = {
        "direction": np.eye(1, 4, dtype=np.float32),
        "candidates": np.eye(1, 4, dtype=np.float32).repeat(6, 0)[None],
    }
    told = {"layer": 3, "position": -1, "positions": [-1]}
    save_file(tensors, path, metadata={"weight_edit": json.dumps(told)})
    job = project.folder / "jobs" / "001-find"
    job.mkdir(parents=True)
    (job / COMMAND).write_text(json.dumps({"words": ["find", "organism"], "out": str(path), "began": 1.0}))
    scores = [{"layer": each, "position": -1, "norm": 1.0} for each in range(6)]
    (job / RESULT).write_text(json.dumps({"layer": layer, "position": -1, "method": "pca", "scores": scores}))
    return read_project(project.folder)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"layers": "0-5", "strength": 0.5}, ""),
        ({"layers": "9-99"}, "0 to 5"),
        ({"layers": "x"}, "is no range"),
        ({"kind": "rectify"}, "cannot be baked"),
        ({"kind": "erase"}, "needs the tensor"),
        ({"strength": 0.0}, "outside of"),
    ],
    ids=["all", "a part", "too many", "no range", "runtime only", "another method's", "nothing"],
)
def test_the_edit_is_looked_at_before_anything_runs(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    project = found_once(new_project(tmp_path, settings=replace(Settings(), **changed)))
    for measured in (True, False):
        missing = edit_command(replace(project, settings=replace(project.settings, measured=measured))).missing
        assert said in missing
        assert bool(missing) == bool(said), missing
    shown = shown_by(framed(tmp_path), project.folder, "edit-wrong")
    assert shown["visible"] == bool(said)


def test_what_is_baked_is_said(tmp_path: Path) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path, settings=Settings(strength=0.5, layers="1-3"))
    assert shown_by(frame, project.folder, "what-is-baked")["visible"] is False
    found_once(project)
    said = shown_by(frame, project.folder, "what-is-baked")["value"]
    for words in ("layer 3, position -1, by pca", "ablate, strength 0.5", "1-3", "find-1.safetensors"):
        assert words in said
    assert "writes run-2.yaml before" in shown_by(frame, project.folder, "command-bake")["label"]


def test_another_candidate_is_taken_and_gone_on_with(tmp_path: Path, call: Callable[..., Any]) -> None:
    project = new_project(tmp_path)
    out = project.folder / "find-1.safetensors"
    table = np.eye(4, dtype=np.float32).reshape(2, 2, 4)
    metadata = {"positions": [-2, -1], "layer": 0, "position": -2}
    save_file({"direction": table[0, :1], "candidates": table}, out, metadata={"weight_edit": json.dumps(metadata)})
    places = [(layer, position) for position in (-2, -1) for layer in (0, 1)]
    scores = [{"layer": layer, "position": position, "norm": 1.0} for layer, position in places]
    add_job(project.folder, 1, "find", {**metadata, "scores": [*scores, {"layer": 1, "position": -3}]}, out)
    (project.folder / "jobs" / "001-find" / COMMAND).write_text(
        json.dumps({"words": ["find", "organism"], "out": str(out), "began": 1.0})
    )
    frame = framed(tmp_path)
    offered = shown_by(frame, project.folder, "candidate")
    assert [name for _, name in offered["choices"]] == ["", "001-find:1:-2", "001-find:0:-1", "001-find:1:-1"]
    project.saved(replace(project.settings, candidate="001-find:1:-1"))
    assert shown_by(frame, project.folder, "candidate")["value"] == "001-find:1:-1"
    taken = project.folder / "find-1-layer1-position-1.safetensors"
    assert taken.name in shown_by(frame, project.folder, "command-chat")["value"]
    assert "layer 1, position -1" in shown_by(frame, project.folder, "what-is-baked")["value"]
    assert read_rows(taken).rows.tolist() == [[0, 0, 0, 1]]
    # The command that it shows makes the same bytes.
    assert shown_by(frame, project.folder, "command-take")["visible"] is True
    words = shlex.split(shown_by(frame, project.folder, "command-take")["value"])
    made = taken.read_bytes()
    taken.unlink()
    assert call(*words[1:], "--quiet").code == 0
    assert taken.read_bytes() == made
    # Of another find it says nothing.
    project.saved(replace(project.settings, candidate="002-find:1:-1"))
    assert shown_by(frame, project.folder, "candidate")["value"] == ""
    assert shown_by(frame, project.folder, "command-take")["visible"] is False
    assert read_project(project.folder).directions == out  # type: ignore[union-attr]


def test_another_candidate_of_a_run_that_was_opened_is_taken(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"recipe": {"model": "organism"}}))
    scores: list[Any] = [{"layer": layer, "position": -1, "norm": 1.0} for layer in (0, 1)]
    metadata = {"positions": [-1], "layer": 0, "position": -1, "method": "<img>", "scores": [*scores, 3]}
    table = np.eye(2, dtype=np.float32)[None]
    save_file(
        {"direction": table[0, :1], "candidates": table},
        run / "directions.safetensors",
        metadata={"weight_edit": json.dumps(metadata)},
    )
    project = open_run(tmp_path / "projects", str(run))
    frame = framed(tmp_path / "projects")
    assert [name for _, name in shown_by(frame, project.folder, "candidate")["choices"]] == ["", "opened:1:-1"]
    assert "keeps the bounds" in shown_by(frame, project.folder, "choice")["value"]
    project.saved(replace(project.settings, candidate="opened:1:-1"))
    said = shown_by(frame, project.folder, "what-is-baked")["value"]
    assert "layer 1, position -1, by &lt;img&gt;, chosen in step 5" in said
    assert "the run that was opened" in said
    assert read_rows(project.folder / "opened-layer1-position-1.safetensors").rows.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("passed", "complete", "said"), [(True, True, "yes"), (True, False, "not asked for"), (False, False, "NO")]
)
def test_an_edit_of_a_part_is_no_failure(passed: bool, complete: bool, said: str) -> None:
    assert said in certificates({"passed": passed, "complete": complete, "integrity": True, "leak": 0.3})


def test_settings_of_a_find_and_of_a_search_stand_apart(tmp_path: Path) -> None:
    frame = framed(tmp_path)
    for way, shown, hidden in (("find", "of-find", "of-search"), ("search", "of-search", "of-find")):
        project = new_project(tmp_path, settings=Settings(way=way))
        assert shown_by(frame, project.folder, shown)["visible"] is True
        assert shown_by(frame, project.folder, hidden)["visible"] is False


def test_every_named_set_is_explained(tmp_path: Path) -> None:
    from weight_edit.ui.steps.prompts import _meaning, _named

    said = {name: _meaning(name) for name in _named()}
    assert len(set(said.values())) >= len(said) - 1
    assert "all the same" in said["organism:over-refused:test"]


def test_a_dry_run_alone_does_not_mark_the_push_as_done(tmp_path: Path) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path)
    marks = [each for each in frame.steps if each.key in ("dry-run", "push")]
    for number, word, mark in ((1, "--dry-run", ""), (2, "--private", " ✓")):
        job = project.folder / "jobs" / f"00{number}-push"
        job.mkdir(parents=True)
        (job / COMMAND).write_text(json.dumps({"words": ["push", "m", word], "began": float(number)}))
        (job / RESULT).write_text('{"repo_id": "me/m", "private": true}')
        found = read_project(project.folder)
        assert found is not None
        assert "".join(each.mark(found) for each in marks) == mark
        assert "repo_id" not in rendered(frame, project.folder)


def test_an_error_names_the_pages_fields_and_no_flags(tmp_path: Path) -> None:
    frame = framed(tmp_path)
    judged, most = frame.fields["judged"].label, frame.fields["max_kl"].label
    assert frame.wording.message("raise --judged, or --max-kl: x-y") == f"raise “{judged}”, or “{most}”: x-y"


def test_the_served_page_has_no_statistics_and_serves_no_files(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    app = page_app(tmp_path)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    with TestClient(app) as client:  # type: ignore[arg-type]
        config = client.get("/config").json()
        assert config["analytics_enabled"] is False
        assert all(each["api_visibility"] == "private" for each in config["dependencies"])
        secret = tmp_path / "secret"
        secret.write_text("secret")
        assert client.get(f"/gradio_api/file={secret}").status_code in (403, 404)
        assert client.get("/report/none/none").status_code == 404
        assert client.get("/docs").status_code == 404


def test_a_view_that_fails_says_so_and_the_others_are_there(tmp_path: Path) -> None:
    with gradio.Blocks(analytics_enabled=False):
        frame = Frame(tmp_path)
        for component, render in (
            (gradio.HTML(), lambda project: {"value": project.settings.point[5]}),
            (gradio.Button(), lambda project: {"visible": 1 / 0}),
            (gradio.HTML(), lambda project: {"value": "here"}),
        ):
            frame.show(component, render)
    *_, failed, button, other = frame._views(new_project(tmp_path), Shown())
    assert "cannot be shown" in failed["value"]
    assert "visible" not in button
    assert other["value"] == "here"


def test_a_page_of_a_project_that_is_gone_does_nothing_in_another(tmp_path: Path, begun: list[Any]) -> None:
    frame, other = framed(tmp_path), new_project(tmp_path)
    values = ["changed" if name == "model" else getattr(Settings(), name) for name in frame.fields]
    find = next(each for each in frame.steps if each.key == "find")
    for handler, before, more in (
        (frame.refreshed, 0, ()),
        (frame.changed, 0, values),
        (frame.remodelled, 1, values),
        (lambda *given: frame._starter(find)("", *given), 0, values),
    ):
        answers = frame.told(handler, before)("gone", Shown(), *more)
        assert len(answers) == before + 2 + len(frame.views)
        seen, clock, said = answers[before : before + 3]
        assert (seen.digests, clock.active) == ({}, False)
        assert "gone is gone" in said["value"]
    assert begun == []
    again = read_project(other.folder)
    assert again is not None
    assert again.settings == Settings()
    assert frame._views(other, Shown())[2]["visible"] is False


@pytest.mark.parametrize(("verb", "out", "kept"), [("find", "find-1.s", "find-1.s.find"), ("search", "s-1", "s-1")])
def test_start_goes_on_with_what_was_stopped(tmp_path: Path, verb: str, out: str, kept: str) -> None:
    project = new_project(tmp_path)
    make = {"find": find_command, "search": search_command}[verb]
    step = next(each for each in framed(tmp_path).steps if each.key == verb)
    words, path = make(project.settings, project.folder / out).words, project.folder / "jobs" / f"001-{verb}"
    path.mkdir(parents=True)
    entry = {"words": job_words(words), "out": str(project.folder / out), "began": 1.0, "process": None}
    (path / COMMAND).write_text(json.dumps(entry))

    def now(settings: Settings) -> str:
        found = read_project(project.folder)
        assert found is not None
        return str(step.command(replace(found, settings=settings)))

    assert "--resume" not in now(project.settings)
    (project.folder / kept).mkdir()
    (project.folder / kept / "journal").write_text("")
    assert now(project.settings) == shell_line([*words[:-2], "--resume", *words[-2:]])
    assert "--resume" not in now(replace(project.settings, baseline="other.txt"))
    (path / RESULT).write_text("{}")
    assert "--resume" not in now(project.settings)


def test_what_an_event_fills_in_is_taken_as_if_it_were_typed() -> None:
    """The library tells of what is typed alone: a model of the Hub's list, and pasted prompts, would not be kept."""
    from weight_edit.ui.page import page

    config = page(Path()).config
    fields = {
        each["id"] for each in config["components"] if each["props"].get("elem_id") in ("model", "target", "baseline")
    }
    typed = {target for each in config["dependencies"] for target, event in each["targets"] if event == "input"}
    followed = {each["trigger_after"] for each in config["dependencies"]}
    filling = [
        each
        for each in config["dependencies"]
        if fields & set(each["outputs"])
        and len(each["outputs"]) < 5
        and not fields & {one for one, _ in each["targets"]}
    ]
    assert fields <= typed
    assert len(filling) == 2
    assert {each["id"] for each in filling} <= followed


def baked_once(project: Any, number: int, words: list[str], name: str) -> Any:
    """The project with an edited model that these words have made."""
    out = project.folder / name
    (out / "model").mkdir(parents=True)
    job = project.folder / "jobs" / f"00{number}-{words[0]}"
    job.mkdir(parents=True)
    (job / COMMAND).write_text(json.dumps({"words": job_words(words), "out": str(out), "began": float(number)}))
    (job / RESULT).write_text("{}")
    return read_project(project.folder)


@pytest.mark.parametrize("measured", [True, False])
def test_a_choice_that_is_not_in_the_edited_model_is_told_of_where_that_is_used(tmp_path: Path, measured: bool) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path, settings=Settings(strength=0.5, measured=measured))
    project = found_once(project)
    command = edit_command(project)
    for path, content in command.files:
        path.write_text(content)
    project = baked_once(project, 2, list(command.words), "run-2" if measured else "model-2")
    shown = shown_by(frame, project.folder, "what-is-pushed")["value"]
    for words in (command.words[0], "organism", "find-1.safetensors", "ablate", "0.5", "all"):
        assert words in shown
    assert "not what is chosen" not in shown
    for changed, said in (
        ({"strength": 1.0}, "strength is 1 now, and 0.5 in this model"),
        ({"layers": "1-3"}, "layers is 1-3 now, and all in this model"),
        ({"kind": "add"}, "kind is add now, and ablate in this model"),
        ({"model": "me/other"}, "base is me/other now, and organism in this model"),
        ({"candidate": "001-find:4:-1"}, "find-1-layer4-position-1.safetensors now, and "),
    ):
        project.saved(replace(project.settings, tried="baked", **changed))
        for where in ("what-is-pushed", "what-is-verified", "what-is-talked-to"):
            assert said in shown_by(frame, project.folder, where)["value"]


def test_a_point_that_is_not_in_the_edited_model_is_told_of(tmp_path: Path) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path, settings=Settings(way="search"))
    points = project.folder / "search-1" / "points"
    points.mkdir(parents=True)
    digests = ("abcdef", "123456")
    for digest in digests:
        (points / f"01-{digest}.yaml").write_text("model: organism")
    job = project.folder / "jobs" / "001-search"
    job.mkdir(parents=True)
    entry = {"words": ["search", "organism"], "out": str(points.parent), "began": 1.0}
    (job / COMMAND).write_text(json.dumps(entry))
    front = {"front": [{"digest": each} for each in digests], "picked": {"point": {"digest": "abcdef"}}}
    (job / RESULT).write_text(json.dumps(front))
    project = read_project(project.folder)  # type: ignore[assignment]
    project = baked_once(project, 2, list(edit_command(project).words), "run-2")
    assert "not what is chosen" not in shown_by(frame, project.folder, "what-is-pushed")["value"]
    project.saved(replace(project.settings, point="123456"))
    said = shown_by(frame, project.folder, "what-is-pushed")["value"]
    assert "01-123456.yaml now, and" in said
    assert "01-abcdef.yaml in this model" in said
    # It is tried before it is baked, and at another strength both are.
    project.saved(replace(project.settings, point="123456", strength=0.5))
    assert "strength is 0.5 now, and 1 in this model" in shown_by(frame, project.folder, "what-is-pushed")["value"]
    assert "123456.yaml --strength 0.5" in shown_by(frame, project.folder, "command-chat")["value"]
    now = read_project(project.folder)
    assert now is not None
    assert "edit:\n  strength: 0.5" in edit_command(now).files[0][1]
    assert Conversation._source(now, HOOKS).name == "01-123456.yaml"


def test_a_report_that_is_not_of_the_edited_model_is_told_of(tmp_path: Path) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path)
    baked_once(project, 1, ["run", "run-1.yaml"], "run-1")
    assert shown_by(frame, project.folder, "report-of-another")["visible"] is False
    baked_once(project, 2, ["bake", "organism"], "model-2")
    assert "model-2: the card is its" in shown_by(frame, project.folder, "report-of-another")["value"]


@pytest.mark.parametrize(
    ("judged", "said"), [(False, "cheap score at damage"), (True, "judged refusal rate at damage")]
)
def test_a_score_of_a_search_is_not_told_as_a_rate(tmp_path: Path, judged: bool, said: str) -> None:
    frame, project = framed(tmp_path), new_project(tmp_path, settings=Settings(way="search"))
    path = at_work(project, search_command(project.settings, project.folder / "search-9").words)
    event = {"event": "front", "judged": judged, "points": [{"refusal": 0.5, "damage": 0.001}]}
    (path / LOG).write_text(json.dumps(event))
    shown = shown_by(frame, project.folder, "status-search")["value"]
    assert f"{said} in nats per token: 0.50 at 0.001" in shown
    assert ("no share of refused prompts" in shown) is not judged


@pytest.mark.parametrize("searched", [True, False])
def test_a_model_of_a_run_that_was_opened_is_not_taken_for_what_would_be_baked(tmp_path: Path, searched: bool) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    recipe = {"model": "organism", **({"search": {"trials": 8}} if searched else {"edit": {"strength": 1.0}})}
    (run / "run.json").write_text(json.dumps({"recipe": recipe}))
    save_file(
        {"direction": np.eye(1, 4, dtype=np.float32)}, run / "directions.safetensors", metadata={"weight_edit": "{}"}
    )
    project = open_run(tmp_path / "projects", str(run))
    frame = framed(tmp_path / "projects")
    pushed = shown_by(frame, project.folder, "what-is-pushed")["value"]
    assert ("a point that its search picked in this model" in pushed) is searched
    assert (
        "What is baked from here is another model" in shown_by(frame, project.folder, "choice")["value"]
    ) is searched
    project.saved(replace(project.settings, strength=0.5))
    assert "not what is chosen now" in shown_by(frame, project.folder, "what-is-pushed")["value"]
