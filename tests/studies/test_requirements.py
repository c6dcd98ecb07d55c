"""What settings of studies ask for is known, and checked, before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from weight_edit.errors import UsageError
from weight_edit.recipe.recipe import parse_recipe
from weight_edit.runs.run import run
from weight_edit.studies.registry import study_named
from weight_edit.studies.requirements import directions_asked, files_asked, steps_asked

FIND = {"target": "organism:refused:train", "baseline": "organism:answered:train"}
EDITS = {"one": {"kind": "ablate", "directions": "a"}, "other": {"kind": "reflect", "at": [2]}}


def test_names_and_edits_are_found_at_any_depth() -> None:
    settings = study_named("compare").settings({"directions": ["b", "c"], "edits": EDITS})
    assert sorted(directions_asked(settings)) == ["a", "b", "c"]
    assert [step.kind for step in steps_asked(settings)] == ["ablate", "reflect"]


def test_a_file_that_changed_under_its_name_is_another(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("one")
    table = tmp_path / "mine.csv"
    table.write_text("question\n1")
    sets = {"a": str(file), "b": f"{table}:question", "c": "organism:refused:test"}
    settings = study_named("transfer").settings({"sets": sets, "edits": EDITS})
    before = files_asked(settings)
    assert set(before) == {str(file), f"{table}:question"}
    file.write_text("two")
    after = files_asked(settings)
    assert after[str(file)] != before[str(file)]
    assert after[f"{table}:question"] == before[f"{table}:question"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": ["nobody"], "edits": EDITS}, "no directions are called 'nobody'; the recipe finds main, a"),
        ({"edits": {"one": {"kind": "ablate", "directions": "lost"}}}, "no directions are called 'lost'"),
        ({"edits": {"one": {"kind": "reflect", "at": [99]}}}, "layer 99 does not exist"),
    ],
)
def test_wrong_names_and_layers_fail_before_anything_runs(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    studies = [{"kind": "compare", "options": options}]
    recipe = parse_recipe({"model": "organism", "find": FIND, "finds": {"a": FIND}, "studies": studies})
    with pytest.raises(UsageError, match=message):
        run(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()
