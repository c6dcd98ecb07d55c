"""The page of several runs: each has a line, a name and a command of its own."""

import json
import shlex
from pathlib import Path

from tests.helpers.report_samples import sample_run, write_json
from weight_edit.report.contents import page_of
from weight_edit.report.figure import Commands
from weight_edit.report.page import Page
from weight_edit.report.run_record import RunRecord


def page(*folders: Path) -> Page:
    return page_of([RunRecord.read(folder) for folder in folders])


def test_the_command_of_a_comparison_has_each_folder_as_one_word(tmp_path: Path) -> None:
    folders = [sample_run(tmp_path / name) for name in ("a; touch there", "one/demo", "two/demo")]
    part = page(*folders).last[0].parts[0]
    assert isinstance(part, Commands)
    assert shlex.split(part.lines[0])[:5] == ["weight-edit", "report", *map(str, folders)]


def test_a_run_without_an_edit_is_not_drawn_among_the_edited(tmp_path: Path) -> None:
    folders = [sample_run(tmp_path / name) for name in ("done", "begun")]
    record = json.loads((folders[1] / "run.json").read_text())
    record["summary"] = {"baseline": record["summary"]["baseline"]}
    write_json(folders[1] / "run.json", record)
    overview = page(*folders).overview
    assert overview is not None
    assert {row["row"] for row in overview.spec["data"]["values"]} == {"done"}
    assert overview.table.rows[1] == ("begun", *["not measured"] * 5)
