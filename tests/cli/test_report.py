"""The verb `report`: where its files are, its document, its exit codes, and what may be replaced."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.helpers.report_samples import sample_run, write_json
from weight_edit.checkpoint.rewrite.ownership import check_own, files_below, written
from weight_edit.errors import UsageError
from weight_edit.report import figure_files, page


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library in the page and no pictures: both take seconds, and are looked at elsewhere."""
    monkeypatch.setattr(page, "_library", lambda: "/* the library */")
    monkeypatch.setattr("weight_edit.report.report.write_figures", lambda folder, figures: [])
    assert figure_files.FIGURES == "figures"


def test_a_report_lies_in_the_run_and_is_told_as_a_document(call, tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run")
    told = call("report", run, "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert found == {
        "path": str(run / "report" / "report.html"),
        "size": (run / "report" / "report.html").stat().st_size,
        "figures": [],
    }
    again = call("report", run)
    assert (again.code, "--overwrite" in again.err) == (2, True)
    shown = call("report", run, "--overwrite")
    assert shown.code == 0
    assert "it loads nothing" in " ".join(shown.out.split())


def test_several_runs_need_a_place(call, tmp_path: Path) -> None:
    runs = [sample_run(tmp_path / name) for name in ("one", "two")]
    refused = call("report", *runs)
    assert (refused.code, "--out" in refused.err) == (2, True)
    assert call("report", *runs, "--out", tmp_path / "both").code == 0
    assert "2 runs compared" in (tmp_path / "both" / "report.html").read_text()


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1e999}', "{" * 5000])
def test_what_is_no_run_is_one_line(call, tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    refused = call("report", tmp_path)
    assert refused.code == 2
    assert len(refused.err.strip().splitlines()) == 1
    assert call("report", tmp_path / "nothing").code == 2


def test_a_run_whose_report_was_made_again_is_still_its_own(call, tmp_path: Path) -> None:
    run = sample_run(tmp_path / "run")
    assert call("report", run).code == 0
    state = json.loads((run / "run.json").read_text())
    names = [each.relative_to(run).as_posix() for each in run.rglob("*") if each.is_file() and each.name != "run.json"]
    state["files"] = {name: asdict(written(run / name)) for name in names}
    write_json(run / "run.json", state)
    check_own(run)
    # The page says another title now, which the run's record does not know.
    state["recipe"]["title"] = "Another title"
    write_json(run / "run.json", state)
    assert call("report", run, "--overwrite").code == 0
    assert "report/report.html" in files_below(run, "report")
    check_own(run)
    (run / "report" / "report.html").write_text("somebody else's")
    with pytest.raises(UsageError, match=r"report\.html"):
        check_own(run)
