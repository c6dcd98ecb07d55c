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


def test_runs_whose_long_names_differ_where_they_end_have_a_line_each(tmp_path: Path) -> None:
    begun = "2026-11-30-organism-refusal-ablation-strength-0."
    overview = page(*(sample_run(tmp_path / f"{begun}{end}") for end in (5, 7))).overview
    assert overview is not None
    drawn = overview.spec["data"]["values"]
    assert [row["name"] for row in drawn] == [f"{begun}5"] * 4 + [f"{begun}7"] * 4
    assert len({row["row"] for row in drawn}) == 2
    assert {row["row"][-4:] for row in drawn} == {"-0.5", "-0.7"}


def test_a_run_of_any_name_leaves_the_base_its_answers(tmp_path: Path) -> None:
    found = page(*(sample_run(tmp_path / name) for name in ("before", "the base"))).answers
    assert {tuple(side.of for side in pair.sides) for pair in found.pairs} == {("the base", "before", "the base (2)")}
    first = {pair.prompt: pair for pair in found.pairs}["Question 3 of refused?"]
    assert [side.verdict for side in first.sides] == ["refused", "answered", "answered"]
    # Both runs answer what the base refuses, and the base alone is no reason to fold.
    assert first.folded
