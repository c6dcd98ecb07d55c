"""Every recipe runs on the embedded model, with fewer prompts, and leaves what the index says."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from weight_edit.recipe import load_recipe
from weight_edit.running import run

RECIPES = Path(__file__).parent.parent / "recipes"
APART = ("organism", "hub")
"""The demo's, which has tests of its own, and an overlay."""
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem not in APART)
FEWER = ("evaluate.limit=11", "verify.n_prompts=2")
SMALLER: dict[str, tuple[str, ...]] = {
    "refusal-cone": ("finds.cone.options.steps=4",),
    "inlp-sweep": ("studies.0.options.keep=[1, 4]", "studies.1.options.keep=[4]"),
    "som": ("find.options.choose=2",),
    "methods": (
        "finds.gradient.options.steps=2",
        "finds.som.options.choose=1",
        "studies.0.options.directions=[mean-difference, leace]",
    ),
}
"""What makes a recipe quicker still; by its name."""


class Ran:
    """Runs of recipes, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Path] = {}

    def __call__(self, name: str) -> Path:
        if name not in self.known:
            recipe = load_recipe(RECIPES / f"{name}.yaml", [*FEWER, *SMALLER.get(name, ())])
            self.known[name] = run(recipe, self.folder / name).path
        return self.known[name]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("recipes"))


def table(run_folder: Path, study: int, name: str) -> list[dict[str, Any]]:
    (folder,) = (run_folder / "studies").glob(f"{study}-*")
    rows: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return rows


def compared(run_folder: Path, study: int = 1) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["directions"], row["edit"]): row for row in table(run_folder, study, "compare")}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_keeps_its_bounds_and_leaves_tables_and_figures(name: str, ran: Ran) -> None:
    out = ran(name)
    recipe = load_recipe(RECIPES / f"{name}.yaml")
    state = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert state["status"] == "done"
    assert (out / "model").exists() == (recipe.edit is not None)
    assert len(list(out.glob("directions*.safetensors"))) == len(recipe.searches)
    for path in ("recipe.yaml", "log.txt", "answers/baseline.jsonl"):
        assert (out / path).stat().st_size > 0
    folders = sorted(path for path in (out / "studies").iterdir()) if recipe.studies else []
    assert len(folders) == len(recipe.studies)
    for folder in folders:
        tables = list(folder.glob("*.csv"))
        assert tables
        for path in tables:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            same = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            assert len(rows) == len(same) > 0
            for row in same:
                if row.get("refusal") is not None:
                    assert row["refusal_low"] <= row["refusal"] <= row["refusal_high"]
        figures = list(folder.glob("*.png"))
        assert figures
        assert all(path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n") for path in figures)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_it_shows_and_how_it_is_run_elsewhere(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")
    header = text[: text.index("\ntitle:")]
    assert "# Shows:" in header
    assert "# Published:" in header
    assert f"weight-edit run recipes/{name}.yaml" in header
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_the_overlay_gives_a_recipe_public_prompts_and_lifts_what_only_the_embedded_model_keeps(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml", ["model=org/name"], [RECIPES / "hub.yaml"])
    assert recipe.model == "org/name"
    if "@target" in (RECIPES / f"{name}.yaml").read_text(encoding="utf-8"):
        said = [spec for search in recipe.searches.values() for spec in (search.target, search.baseline)]
        assert not any(spec.startswith("organism") for spec in [*said, recipe.evaluate.refused, recipe.verify.prompts])
    assert recipe.bounds.max_refusal is None
    assert recipe.bounds.min_helpful_recovered is None


@pytest.mark.slow
def test_added_refusal_needs_the_direction(ran: Ran) -> None:
    rows = {(row["directions"], row["strength"]): row for row in table(ran("refusal-addition"), 1, "sweep")}
    assert rows["main", 1.0]["answered_refusal"] > 0.9
    assert rows["random", 1.0]["answered_refusal"] < 0.1


@pytest.mark.slow
def test_the_flip_does_what_the_projection_does_not(ran: Ran) -> None:
    rows = compared(ran("inlp-flip"))
    flip, projection = rows["inlp", "flip at one layer"], rows["inlp", "projection"]
    assert flip["refusal"] < projection["refusal"]
    assert flip["refusal"] <= rows["mean-difference", "projection"]["refusal"] + 0.2
    assert rows["random", "flip at one layer"]["refusal"] > 0.9


@pytest.mark.slow
def test_an_eraser_is_made_by_leace_alone(ran: Ran) -> None:
    rows = compared(ran("methods"))
    assert "refusal" in rows["leace", "erase"]
    assert "refusal" not in rows["mean-difference", "erase"]
    assert "left" in rows["mean-difference", "erase"]["why_not"]
