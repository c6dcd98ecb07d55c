"""Projects: what was chosen and started, told from their folder; runs of the command line are opened in them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from weight_edit.errors import UsageError
from weight_edit.ui.jobs import COMMAND, RESULT
from weight_edit.ui.project import (
    Project,
    edit_problem,
    list_projects,
    named_project,
    new_project,
    open_project,
    open_run,
    read_project,
)
from weight_edit.ui.report_route import report_file
from weight_edit.ui.settings import Settings
from weight_edit.ui.steps.edit import edit_command
from weight_edit.ui.steps.prompts import kept_text


def add_job(folder: Path, name: str, words: list[str], out: Path | None, result: dict[str, object]) -> None:
    """A job that is done."""
    path = folder / "jobs" / name
    path.mkdir(parents=True)
    entry = {"words": words, "out": None if out is None else str(out), "began": float(name[:3]), "process": None}
    (path / COMMAND).write_text(json.dumps(entry))
    (path / RESULT).write_text(json.dumps(result))


def made_run(folder: Path) -> Path:
    """A run of the command line, as far as a project reads it."""
    (folder / "model").mkdir(parents=True)
    recipe = {
        "model": "<img src=x onerror=alert(1)>",
        "find": {"target": ["a.txt"], "baseline": "b.txt", "method": 3},
        "edit": {"kind": "reflect", "strength": 0.5},
        "evaluate": {"refused": "c.txt"},
    }
    (folder / "run.json").write_text(json.dumps({"recipe": recipe, "summary": {"baseline": {}}}))
    (folder / "directions.safetensors").write_bytes(b"rows")
    return folder


def test_what_is_chosen_is_kept(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    project.saved(replace(Settings(), model="other"))
    again = read_project(project.folder)
    assert again is not None
    assert again.settings.model == "other"
    assert list_projects(tmp_path) == [project.name]
    assert open_project(tmp_path, project.name).folder == project.folder


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "", None, 3, ["a"], "no such", "a/../b"])
def test_a_name_from_the_browser_opens_projects_alone(tmp_path: Path, name: object) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "project.json").write_text("{}")
    opened = open_project(tmp_path / "projects", name)
    assert opened.folder.parent == (tmp_path / "projects").resolve()


def test_the_last_result_of_each_kind_is_taken(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    first, second = project.folder / "find-1.safetensors", project.folder / "find-2.safetensors"
    for path in (first, second):
        path.write_bytes(b"")
    add_job(project.folder, "001-find", ["find", "organism"], first, {"layer": 1})
    add_job(project.folder, "002-find", ["find", "organism"], second, {"error": "no", "exit_code": 3})
    run = made_run(project.folder / "run-3")
    add_job(project.folder, "003-run", ["run"], run, {})
    found = read_project(project.folder)
    assert found is not None
    assert found.directions == first
    assert found.run == run
    assert found.edited == run / "model"
    assert found.next_job("bake").name == "004-bake"
    assert found.next_out("model").name == "model-4"


def test_a_folder_that_is_no_job_and_an_output_without_one_take_their_numbers(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    (project.folder / "jobs" / "004-find").mkdir(parents=True)
    assert project.next_job("find").name == "005-find"
    (project.folder / "run-7.yaml").write_text("")
    (project.folder / "pasted-target.txt").write_text("")
    found = read_project(project.folder)
    assert found is not None
    assert (found.next_job("find").name, found.next_out("model").name) == ("008-find", "model-8")


def test_a_project_that_is_gone_or_broken_is_no_other(tmp_path: Path) -> None:
    other, gone = new_project(tmp_path, "other"), new_project(tmp_path, "gone")
    assert named_project(tmp_path, gone.name).folder == gone.folder
    (gone.folder / "project.json").write_text("{")
    for name in (gone.name, "", None, "..", "no such"):
        with pytest.raises(UsageError, match="is gone"):
            named_project(tmp_path, name)
    assert open_project(tmp_path, gone.name).folder == other.folder
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, gone.name])


def test_a_point_of_the_front_is_a_recipe_in_the_searchs_folder(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    search = project.folder / "search-1"
    (search / "points").mkdir(parents=True)
    for digest in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"):
        (search / "points" / f"01-{digest}.yaml").write_text("")
    front = [{"digest": "aaaaaaaaaaaa"}, {"digest": "bbbbbbbbbbbb"}, {"digest": "../../x"}]
    picked = {"point": {"digest": "aaaaaaaaaaaa"}}
    add_job(project.folder, "001-search", ["search", "organism"], search, {"front": front, "picked": picked})

    def point(chosen: str) -> Path | None:
        saved = project.saved(replace(Settings(), point=chosen))
        again = read_project(saved.folder)
        assert again is not None
        return again.point

    assert point("") == search / "points" / "01-aaaaaaaaaaaa.yaml"
    assert point("bbbbbbbbbbbb") == search / "points" / "01-bbbbbbbbbbbb.yaml"
    assert point("../../x") is None
    assert point("no such") == search / "points" / "01-aaaaaaaaaaaa.yaml"


def test_what_was_found_on_one_model_is_of_no_use_to_another(tmp_path: Path) -> None:
    project = open_run(tmp_path, str(made_run(tmp_path / "runs" / "x")))
    opened = project.folder / "opened.safetensors"
    (project.folder / "find-1.safetensors").write_bytes(b"")
    words = ["find", "--json", "A/one", "--target", "x"]
    add_job(project.folder, "001-find", words, project.folder / "find-1.safetensors", {})
    add_job(project.folder, "002-search", ["search", "A/one"], project.folder / "search-2", {"front": []})

    def on(model: str) -> Project:
        found = read_project(project.folder)
        assert found is not None
        return replace(found, settings=replace(found.settings, model=model))

    assert (on("A/one").directions, on("A/one").search is None) == (project.folder / "find-1.safetensors", False)
    assert (on(project.settings.model).directions, on(project.settings.model).search) == (opened, None)
    other = on("B/other")
    assert (other.directions, other.find, other.search) == (None, None, None)
    assert "of this model first" in edit_command(other).missing


def test_a_run_of_the_command_line_is_opened_and_left_as_it_is(tmp_path: Path) -> None:
    run = made_run(tmp_path / "runs" / "<b>x")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    project = open_run(tmp_path / "projects", str(run))
    again = read_project(project.folder)
    assert again is not None
    assert again.settings.model == "<img src=x onerror=alert(1)>"
    assert (again.settings.kind, again.settings.strength, again.settings.target) == ("reflect", 0.5, "a.txt")
    assert again.settings.method == Settings().method
    assert again.opened == again.run == run
    assert again.directions is not None
    assert again.directions.read_bytes() == b"rows"
    assert "<" not in again.name
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize("content", [None, "{", "[]", '{"recipe": 3}'])
def test_another_folder_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match="is no run"):
        open_run(tmp_path / "projects", str(tmp_path))
    assert not (tmp_path / "projects").exists()


def test_only_what_a_report_wrote_is_served(tmp_path: Path) -> None:
    project = new_project(tmp_path)
    out = project.folder / "report-1"
    out.mkdir()
    (out / "report.html").write_text("<p>")
    add_job(project.folder, "001-report", ["report"], out, {})
    add_job(project.folder, "002-bake", ["bake"], out, {})
    assert report_file(tmp_path, project.name, "001-report") == out / "report.html"
    for name, job in ((project.name, "002-bake"), (project.name, "../001-report"), ("..", "001-report"), ("", "")):
        assert report_file(tmp_path, name, job) is None
    (out / "report.html").unlink()
    (out / "report.html").symlink_to(project.folder / "project.json")
    assert report_file(tmp_path, project.name, "001-report") is None


def test_a_projects_name_can_stand_in_an_address(tmp_path: Path) -> None:
    assert new_project(tmp_path, "a...b..c").name.startswith("a.b.c-")
    assert open_run(tmp_path, str(made_run(tmp_path / "runs" / "a..b"))).name.startswith("a.b-")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        new_project(tmp_path / "file")


def test_layers_that_a_find_did_not_score_are_no_problem(tmp_path: Path) -> None:
    """A method that chooses its place by itself has a score of that place alone."""
    project = new_project(tmp_path)
    out = project.folder / "find-1.safetensors"

    def problem(tensors: dict[str, np.ndarray], layers: str) -> str:
        out.write_bytes(save(tensors, metadata={"weight_edit": "{}"}))
        found = read_project(project.folder)
        assert found is not None
        return edit_problem(replace(found, settings=replace(found.settings, layers=layers)))

    words = ["find", "organism"]
    add_job(project.folder, "001-find", words, out, {"layer": 3, "scores": [{"layer": 3, "position": -1}]})
    row = {"direction": np.eye(1, 3, dtype=np.float32)}
    assert problem(row, "0-5") == ""
    both = {**row, "candidates": np.ones((1, 6, 3), np.float32)}
    assert problem(both, "0-5") == ""
    assert "0 to 5" in problem(both, "0-6")


def test_pasted_prompts_replace_none_that_an_earlier_command_names(tmp_path: Path) -> None:
    (tmp_path / "pasted-target.txt").write_text("of an earlier version")
    first, second = (kept_text(tmp_path, "target", text) for text in ("one\n", "another\n"))
    assert (first.read_text(), second.read_text()) == ("one\n", "another\n")
    assert kept_text(tmp_path, "target", "one\n") == first
    # A file that was changed since is somebody's.
    first.write_text("changed")
    third = kept_text(tmp_path, "target", "one\n")
    assert (first.read_text(), third.read_text()) == ("changed", "one\n")
    assert len(list(tmp_path.iterdir())) == 4
