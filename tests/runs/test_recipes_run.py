"""Every recipe runs on the embedded model, with fewer prompts, and leaves what the index says."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weight_edit.organism.corpus import prompt_set
from weight_edit.organism.embedded import folder as embedded
from weight_edit.prompts import public_sets
from weight_edit.prompts.hub import DatasetName
from weight_edit.recipe.bundled import OVERLAYS
from weight_edit.recipe.recipe import MAIN, load_recipe
from weight_edit.runs.run import _Run, run

RECIPES = Path(__file__).parents[2] / "recipes"
APART = ("organism", "hub")
"""The demo's, which has tests of its own, and an overlay."""
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem not in APART)
assert NAMES, RECIPES
FEWER = ("evaluate.limit=11", "evaluate.max_new_tokens=32", "verify.limit=2")
SMALLER: dict[str, tuple[str, ...]] = {
    "affine": ("studies.0.options.control=false",),
    "concept": ("studies.0.options.strengths=[1.0]",),
    "defended": (
        "studies.0.options.strengths=[1.0]",
        "studies.0.options.control=false",
        "studies.1.options.keep=[8]",
        "studies.1.options.control=false",
    ),
    "eleven-categories": (
        "studies.0.options.limit=11",
        "studies.0.options.strengths=[-1.0, 1.0]",
        "studies.0.options.max_new_tokens=12",
    ),
    "inlp-flip": ("studies.0.options.control=false",),
    "inlp-nullspace": ("studies.0.options.control=false",),
    "inlp-sweep": ("studies.0.options.keep=[1, 4]", "studies.1.options.keep=[4]"),
    "less-over-refusal": ("studies.0.options.strengths=[1.0]",),
    "more-refusal": ("studies.0.options.strengths=[0.5]",),
    "thinking": ("studies.0.options.limit=11",),
    "refusal-addition": ("studies.0.options.strengths=[1]",),
    "refusal-cone": ("finds.cone.options.steps=4", "studies.0.options.control=false"),
    "refusal-direction": ("studies.0.options.strengths=[0.5, 1]",),
    "search": (
        "search.n_train=8",
        "search.n_validation=8",
        "search.trials=4",
        "search.generation=4",
        "search.descents=1",
        "search.descent={steps: 3, directions: 1}",
        "search.judged=8",
        "search.finalists=2",
        "search.lengths=[24, 32]",
        "evaluate.lengths=[8]",
        "bounds.max_refusal=null",
        "bounds.max_over_refusal=null",
        "bounds.min_helpful_recovered=null",
    ),
    "som": ("find.options.choose=2",),
    "methods": (
        "finds.gradient.options.steps=2",
        "finds.som.options.choose=1",
        "studies.0.options.directions=[mean-difference, leace]",
        "studies.0.options.control=false",
        "evaluate.over_refused=null",
    ),
}
"""What makes a recipe quicker still; by its name."""


def smaller(name: str) -> list[str]:
    """A recipe's own numbers of prompts and of repetitions, made few."""
    return [*FEWER, *(f"{search}.n_validation=22" for search in searches_of(name)), *SMALLER.get(name, ())]


def searches_of(name: str) -> list[str]:
    """A recipe's searches for directions, as settings name them."""
    return ["find" if each == MAIN else f"finds.{each}" for each in load_recipe(RECIPES / f"{name}.yaml").searches]


class Ran:
    """Runs of recipes, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Path] = {}

    def __call__(self, name: str) -> Path:
        if name not in self.known:
            recipe = load_recipe(RECIPES / f"{name}.yaml", smaller(name))
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
    for file_name in ("recipe.yaml", "log.txt", "answers/baseline.jsonl"):
        assert (out / file_name).stat().st_size > 0
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
    assert "arXiv" in header or "jim-plus/llm-abliteration" in header or name == "methods"
    assert f"weight-edit run recipes/{name}.yaml" in header


@pytest.mark.parametrize("name", NAMES)
def test_the_overlay_gives_a_recipe_public_prompts_and_lifts_what_only_the_embedded_model_keeps(name: str) -> None:
    recipe = load_recipe(RECIPES / f"{name}.yaml", ["model=org/name"], [RECIPES / "hub.yaml"])
    assert recipe.model == "org/name"
    if "@refused-test" in (RECIPES / f"{name}.yaml").read_text(encoding="utf-8"):
        searches = [spec for each in recipe.searches.values() for spec in (each.target, each.baseline)]
        for spec in (*searches, recipe.evaluate.refused, recipe.evaluate.answered, recipe.verify.prompts):
            assert isinstance(spec, str)
            assert not spec.startswith("organism")
    assert recipe.bounds.max_refusal is None
    assert recipe.bounds.min_helpful_recovered is None


HUB_SETS = {
    "mlabonne/harmful_behaviors": ("refused", (350,)),
    "mlabonne/harmless_alpaca": ("answered", (1000, 1100)),
    "bench-llm/or-bench": ("over-refused", (500, 600)),
    "JailbreakBench/JBB-Behaviors": ("harmless-looking", ()),
    "openai/gsm8k": ("answered", (0,)),
}
"""Public data sets -> what the embedded model has in their place, and the rows at which the overlay cuts them."""


def rows_of(name: DatasetName) -> list[str]:
    """The embedded model's prompts as the rows of a split: training, validation and test ones between the cuts."""
    kind, cuts = HUB_SETS[name.id]
    train, validation, test = (
        [request.prompt for request in prompt_set(kind, split)] for split in ("train", "validation", "test")
    )
    if name.split in ("test", "benign"):
        return test
    rows: list[str] = []
    for until, some in zip(cuts, (train, validation), strict=False):
        rows += (some * until)[: until - len(rows)]
    return rows + (validation, test)[len(cuts) - 1]


@pytest.fixture
def hub_sets(monkeypatch: pytest.MonkeyPatch) -> list[DatasetName]:
    """Data sets of the Hub are the embedded model's prompts; gives those that were asked for."""
    asked: list[DatasetName] = []

    def read(name: DatasetName) -> dict[str, list[str]]:
        asked.append(name)
        assert name.column is not None
        assert name.revision is not None
        rows = rows_of(name)
        return {name.column: rows, "category": ["one"] * len(rows), "Category": ["one"] * len(rows)}

    monkeypatch.setattr(public_sets, "read_dataset", read)
    return asked


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small models in folders, in the place of those from the Hub: one that thinks for a recipe that asks for that."""
    place = tmp_path_factory.mktemp("hub")

    def of(recipe: str) -> Path:
        model = load_recipe(recipe).model
        if not (place / model).exists():
            shutil.copytree(embedded(model), place / model)
        return place / model

    return of


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("name", [*NAMES, "organism"])
def test_all_that_is_read_before_a_recipe_runs_is_there_with_every_overlay(
    name: str, overlay: str, small: Callable[[str], Path], hub_sets: list[DatasetName]
) -> None:
    recipe = load_recipe(name, [f"model={small(name)}"], [overlay])
    job = _Run(recipe, None, False)
    assert job.source.path == small(name)
    assert job.verify_prompts.name == "harmless-alpaca:test[:100]"
    assert hub_sets


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("name", [*NAMES, "organism"])
def test_a_recipe_runs_with_every_overlay(
    name: str, overlay: str, small: Callable[[str], Path], hub_sets: list[DatasetName], tmp_path: Path
) -> None:
    fewer = [*smaller(name), "evaluate.limit=4", "evaluate.max_new_tokens=8"]
    # What is found of so few prompts keeps no bound; that all of it runs is what is asked for here.
    for search in searches_of(name):
        fewer += [f"{search}.n_train=12", f"{search}.n_validation=6", f"{search}.n_answers=6", f"{search}.n_more=0"]
    fewer += ["bounds.max_kl=null", "bounds.max_loss_increase=null", f"model={small(name)}"]
    recipe = load_recipe(name, fewer, [overlay])
    found = run(recipe, tmp_path / "out")
    state = json.loads((found.path / "run.json").read_text(encoding="utf-8"))
    assert state["status"] == "done"
    if recipe.edit is not None:
        assert state["summary"]["verification"]["passed"]


@pytest.mark.slow
def test_one_command_edits_a_model_of_ones_own(
    small: Callable[[str], Path], hub_sets: list[DatasetName], tmp_path: Path
) -> None:
    model = str(small("refusal-direction"))
    fewer = [*smaller("refusal-direction"), "edit.base_model=org/name"]
    found = run(load_recipe("refusal-direction", fewer, model=model), tmp_path / "out")
    state = json.loads((found.path / "run.json").read_text(encoding="utf-8"))
    assert state["status"] == "done"
    assert (state["recipe"]["model"], state["recipe"]["overlays"]) == (model, ["hub"])
    sources = {name: each["source"] for name, each in state["summary"]["edited"]["sets"].items()}
    assert {name: source["dataset"] for name, source in sources.items()} == {
        "refused": "mlabonne/harmful_behaviors",
        "answered": "mlabonne/harmless_alpaca",
        "over_refused": "bench-llm/or-bench",
        "harmless_looking": "JailbreakBench/JBB-Behaviors",
    }
    assert sources["harmless_looking"]["licence"] == "mit"
    card = (tmp_path / "out/model/README.md").read_text(encoding="utf-8")
    for source in sources.values():
        assert f"`{source['dataset']}` at `{source['revision'][:12]}`, licence: " in card
    assert (
        "| target prompts | `harmful-behaviors:train[:350]` of `mlabonne/harmful_behaviors` at `01cead013989`" in card
    )
    # What is recorded runs again, as it is.
    assert load_recipe(tmp_path / "out/recipe.yaml").overlays == ["hub"]


@pytest.mark.slow
def test_added_refusal_needs_the_direction(ran: Ran) -> None:
    rows = {(row["directions"], row["strength"]): row for row in table(ran("refusal-addition"), 1, "sweep")}
    assert rows["main", 1.0]["answered_refusal"] > 0.9
    assert rows["random", 1.0]["answered_refusal"] < 0.1


@pytest.mark.slow
def test_the_flip_of_the_last_token_swaps_the_classes_where_the_projection_does_half(ran: Ran) -> None:
    rows = compared(ran("inlp-flip"))
    flip, projection = (rows["inlp at the last token", edit] for edit in ("flip at one layer", "projection"))
    assert flip["refusal"] < 0.3 < projection["refusal"]
    assert flip["answered_refusal"] > 0.7
    # Elsewhere it is on a par with the ablation of the mean difference, and leaves ordinary requests alone.
    kept = rows["inlp", "flip at one layer"]
    assert abs(kept["refusal"] - rows["mean-difference", "projection"]["refusal"]) < 0.1
    assert kept["answered_refusal"] < 0.1


@pytest.mark.slow
def test_an_eraser_is_made_by_leace_alone(ran: Ran) -> None:
    rows = compared(ran("methods"))
    assert "refusal" in rows["leace", "erase"]
    assert "refusal" not in rows["mean-difference", "erase"]
    assert "left" in rows["mean-difference", "erase"]["why_not"]
