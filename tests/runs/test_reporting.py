"""The page at the end of a run: it is the run's own, made again where figures changed, and its lack fails nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Template

from weight_edit.checkpoint.rewrite.ownership import check_own
from weight_edit.recipe.recipe import parse_recipe
from weight_edit.report import report as made
from weight_edit.runs import reporting
from weight_edit.runs.folder import RunFolder
from weight_edit.utils.progress import quieted
from weight_edit.utils.progress_events import progress_events

FIND = {"target": "organism:refused:train", "baseline": "organism:answered:train"}

pytestmark = pytest.mark.usefixtures("with_reports")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    """The folder of a run that is done."""
    recipe = parse_recipe({"title": "short", "model": "organism", "find": FIND})
    folder = RunFolder.open(tmp_path / "out", recipe, source=tmp_path / "model", resume=False, overwrite=False)
    folder.state.update(status="done", summary={"baseline": {}, "seconds": 1.0})
    folder.save()
    yield folder
    folder.close()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where pages were made, without their pictures."""
    pages: list[Path] = []

    def files(folder: Path, figures: object) -> list[str]:
        pages.append(folder)
        return []

    monkeypatch.setattr(made, "write_figures", files)
    return pages


def test_a_page_that_fails_is_told_as_a_step_that_failed(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weight_edit.utils.extras.is_installed", lambda name: name != "vl_convert")
    events: list[dict[str, object]] = []
    with progress_events(events.append):
        reporting.report_of_run(folder)
    assert [each["state"] for each in events if each.get("step") == "report"] == ["begun", "failed"]


def test_the_page_is_the_runs_own_and_made_again_where_figures_changed(folder: RunFolder, drawn: list[Path]) -> None:
    page = reporting.report_of_run(folder)
    assert page == folder.path / "report/report.html"
    assert "short" in page.read_text(encoding="utf-8")
    folder.state["summary"]["seconds"] = 2.0
    assert reporting.report_of_run(folder) == page
    assert len(drawn) == 1
    folder.state["summary"]["edited"] = {}
    assert reporting.report_of_run(folder) == page
    assert len(drawn) == 2
    check_own(folder.path)


@pytest.mark.parametrize("why", ["missing", "broken", "foreign"])
def test_a_run_without_a_page_is_done(
    folder: RunFolder, drawn: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
) -> None:
    if why == "missing":
        monkeypatch.setattr("weight_edit.utils.extras.is_installed", lambda name: name != "vl_convert")
    if why == "broken":
        monkeypatch.setattr(made, "html", lambda page: Template("{{ page.no.such }}").render(page=page))
    if why == "foreign":
        reporting.report_of_run(folder)
        (folder.path / "report/report.html").write_text("mine", encoding="utf-8")
    with quieted(False):
        assert reporting.report_of_run(folder) is None
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("no report was made: ")]
    assert len(lines) == 1
    assert json.loads((folder.path / "run.json").read_text(encoding="utf-8"))["status"] == "done"
    assert "no report was made: " in (folder.path / "log.txt").read_text(encoding="utf-8")
    if why == "foreign":
        assert (folder.path / "report/report.html").read_text(encoding="utf-8") == "mine"


def test_the_lack_of_a_searchs_page_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with quieted(False):
        assert reporting.report_of_search(tmp_path) is None
    assert capsys.readouterr().err.startswith("no report was made: ")
