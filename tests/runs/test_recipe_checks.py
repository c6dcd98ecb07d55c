"""What of a recipe is refused before any work."""

from pathlib import Path

import numpy as np
import pytest

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_directions import packed_directions
from weight_edit.edits.registry import edit_kinds
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.recipe.bundled import bundled_recipes
from weight_edit.recipe.recipe import EditEntry, load_recipe, parse_recipe
from weight_edit.runs.recipe_checks import check_recipe, check_step
from weight_edit.runs.run import run

FIND = {"target": "organism:refused", "baseline": "organism:answered"}
GIVEN = packed_directions(DirectionRows(np.eye(1, 16)))
AT_A_LAYER = {"add", "rectify"}


def test_an_edit_that_cannot_be_baked_is_refused_before_the_base_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weight_edit.runs.run.evaluate_in_turn", lambda *given, **options: pytest.fail("it measures"))
    recipe = parse_recipe({"model": "organism", "find": FIND, "edit": {"kind": "rectify"}})
    with pytest.raises(UnsupportedError, match=r"edit rectify cannot be baked.*nearest"):
        run(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"find": FIND, "edit": {"kind": "erase"}}, "needs the tensor `left`.*by the method leace"),
        ({"finds": {"a": FIND}, "edit": {"kind": "erase", "directions": "a"}}, "needs the tensor `left`"),
        ({"find": FIND, "edit": {"then": [{"kind": "erase"}]}}, "needs the tensor `left`"),
        ({"find": FIND, "edit": {"kind": "rectify"}}, "edit rectify cannot be baked"),
        ({"directions": {"main": GIVEN}, "edit": {"kind": "affine"}}, "needs the tensor `baseline_mean`"),
        ({"find": {**FIND, "method": "leace"}, "edit": {"kind": "erase"}}, None),
        ({"find": FIND, "edit": {"kind": "affine"}}, None),
        ({"directions": {"main": GIVEN}, "edit": {"kind": "ablate"}}, None),
    ],
)
def test_what_a_recipe_alone_tells_is_refused_before_torch_is_imported(content: dict, said: str | None) -> None:
    recipe = parse_recipe({"model": "organism", **content})
    if said is None:
        check_recipe(recipe)
        return
    with pytest.raises((UsageError, UnsupportedError), match=said):
        check_recipe(recipe)


@pytest.mark.parametrize("kind", sorted(set(edit_kinds()) - {"rectify"}))
def test_every_kind_that_can_be_baked_passes(kind: str) -> None:
    check_step(EditEntry(kind=kind, at="found" if kind in AT_A_LAYER else []), 16)


@pytest.mark.parametrize("kind", ["ablate", "affine", "erase"])
def test_maps_of_the_whole_stream_at_a_layer_are_refused(kind: str) -> None:
    with pytest.raises(UnsupportedError, match="cannot be baked"):
        check_step(EditEntry(kind=kind, at=[1]), 16)


def test_an_option_that_the_kind_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'toward'"):
        check_step(EditEntry(kind="affine", options={"towards": "x"}), 16)


def test_every_bundled_recipe_passes() -> None:
    names = list(bundled_recipes())
    assert names
    for name in names:
        edit = load_recipe(name).edit
        for step in edit.steps if edit else []:
            check_step(step, 16)
