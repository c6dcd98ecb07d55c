"""The recipe of a point is small, says the same edit to the bit, and can be carried out."""

from pathlib import Path

import numpy as np
import pytest

from weight_edit.baking.card.edit_summary import is_of_refusal
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.edits.packed_rows import packed
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.recipe.recipe import MAIN, load_recipe
from weight_edit.runs.given_directions import given_directions
from weight_edit.runs.run import run
from weight_edit.search.point import Point
from weight_edit.search.point_recipe import save_point
from weight_edit.search.strengths import Strengths
from weight_edit.studies.lab import edit_step

SECTIONS = {"model": "organism", "verify": {"prompts": "organism:answered:validation", "limit": 2}, "seed": 3}
KEPT = {"prompts": {"target": {"name": "organism:refused:train"}}, "tokens_from": "answers"}
FACTS = {**KEPT, "scores": [], "layer": 3, "missed": "a bound"}


def point(width: int = 128, k: int = 2, **changes: object) -> Point:
    draw = np.random.default_rng(5)
    drawn = Strengths.from_vector(2 * draw.random(13))
    rows = orthonormal_rows(draw.standard_normal((k, width))).astype(np.float32)
    return Point(**{"rows": rows, "strengths": drawn, "origin": "descent", **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{}, {"keep_norms": True}, {"embeddings": "untie"}])
def test_a_recipe_says_the_edit_of_its_point_to_the_bit(tmp_path: Path, changes: dict[str, object]) -> None:
    edit = point(**changes)
    recipe = load_recipe(save_point(edit, tmp_path / "p.yaml", SECTIONS, title="a point", facts=FACTS))
    (rows,) = given_directions(recipe).values()
    assert recipe.edit is not None
    step = edit_step(recipe.edit, rows)
    assert (step.directions.rows == edit.rows).all()
    assert (step.kind, step.strength, step.kernel) == (edit.step.kind, 1.0, edit.step.kernel)
    assert (recipe.edit.embeddings, recipe.seed, recipe.title) == (edit.embeddings, 3, "a point")
    assert is_of_refusal(rows.metadata), "the card has to say what the edit is for"
    assert rows.metadata == {"method": "search (descent)", **KEPT}, "a choice of `find` is no fact of these"


@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_flat_strengths_are_one_strength(tmp_path: Path, strength: float) -> None:
    edit = point(strengths=Strengths.flat(6, strength))
    recipe = load_recipe(save_point(edit, tmp_path / "p.yaml", SECTIONS))
    assert recipe.edit is not None
    assert (recipe.edit.strength, recipe.edit.kernel) == (strength, None)


def test_no_strength_at_all_is_said_by_layer(tmp_path: Path) -> None:
    recipe = load_recipe(save_point(point(strengths=Strengths.flat(6, 0.0)), tmp_path / "p.yaml", SECTIONS))
    assert recipe.edit is not None
    assert recipe.edit.kernel is not None
    assert recipe.edit.kernel.attention == [0.0] * 6


def test_a_recipe_has_a_few_kilobytes_and_of_a_wide_model_the_directions_lie_beside_it(tmp_path: Path) -> None:
    assert save_point(point(width=896, k=1), tmp_path / "small.yaml", SECTIONS).stat().st_size < 8_000
    wide = point(width=8192, k=4)
    path = save_point(wide, tmp_path / "wide.yaml", SECTIONS, facts=FACTS)
    assert path.stat().st_size < 8_000
    assert load_recipe(path).directions == {MAIN: "wide.safetensors"}
    (rows,) = given_directions(load_recipe(path)).values()
    assert (rows.rows == wide.rows).all()
    assert rows.metadata["prompts"] == FACTS["prompts"]


def test_a_run_of_a_points_recipe_bakes_the_point(tmp_path: Path) -> None:
    edit = point()
    run(load_recipe(save_point(edit, tmp_path / "p.yaml", SECTIONS)), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out/model")
    assert manifest is not None
    (step,) = manifest["edit"]["steps"]
    assert step["directions"].items() >= packed(edit.rows).items()
    assert step["kernel"] == edit.strengths.kernels.model_dump()
