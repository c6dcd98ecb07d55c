"""A recipe with a search bakes what the search picks; it goes on where it stopped, and another rule costs nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.directions.file import folder_of
from weight_edit.directions.find_folder import SCORES
from weight_edit.errors import UsageError
from weight_edit.recipe.recipe import MAIN, Recipe, load_recipe, parse_recipe
from weight_edit.runs.directions import Search
from weight_edit.runs.given_directions import given_directions
from weight_edit.runs.recipe_checks import check_recipe
from weight_edit.runs.run import run
from weight_edit.runs.search import files_while_searching, picked_edit, search_request
from weight_edit.search import score
from weight_edit.search.journal import Journal

FIND = {
    "target": "organism:refused:train",
    "baseline": "organism:answered:train",
    "n_train": 44,
    "n_validation": 12,
    "n_more": 0,
}
SEARCH: dict[str, Any] = {
    "n_train": 8,
    "n_validation": 8,
    "trials": 4,
    "generation": 4,
    "descents": 1,
    "descent": {"steps": 3, "directions": 1, "prices": [0.0, 1.0]},
    "judged": 8,
    "finalists": 3,
    "lengths": [16, 24],
}
CONTENT: dict[str, Any] = {
    "title": "short",
    "model": "organism",
    "find": FIND,
    "search": SEARCH,
    "verify": {"limit": 2},
    "evaluate": {"refused": "organism:refused:test", "limit": 5, "max_new_tokens": 24},
    "bounds": {"max_kl": None},
}


def recipe(**changes: Any) -> Recipe:
    return parse_recipe({**CONTENT, "search": {**SEARCH, **changes}})


def log(folder: Path) -> str:
    return (folder / "log.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "out"
    run(recipe(), out)
    return out


def test_the_point_that_is_picked_is_baked(finished: Path) -> None:
    summary = json.loads((finished / "run.json").read_text(encoding="utf-8"))["summary"]
    found = summary["search"]
    assert summary["verification"]["passed"]
    assert (found["candidates"] >= 4, found["judged"]) == (True, 8)
    chosen = next(each for each in found["front"] if each["digest"] == found["picked"])
    assert set(chosen["refusal"]) == {"16", "24"}
    manifest = read_manifest(finished / "model")
    assert manifest is not None
    (made,) = manifest["edit"]["steps"]
    for path in (finished / "picked/point.yaml", finished / "search" / chosen["recipe"]):
        point = load_recipe(path)
        assert (given_directions(point)[MAIN].rows == picked_edit(finished)[0][0].directions.rows).all()
        assert point.edit is not None
        assert made["strength"] == point.edit.strength
        assert made.get("kernel") == (point.edit.kernel and point.edit.kernel.model_dump())
        # What is measured and held to bounds is the run's own.
        assert point.evaluate == recipe().evaluate
        assert point.bounds == recipe().bounds
    assert made["directions"]["prompts"]["target"], "manifest and card know what the directions are for"


def test_all_that_a_search_writes_is_said_before(finished: Path) -> None:
    """What a killed one leaves is known as the run's own by these names, and its points by the search's record."""
    asked = recipe(finders={"inlp": {}})
    find = Search.of(asked.searches[MAIN], asked.seed).request
    known = files_while_searching(search_request(asked, find), folder_of("directions.safetensors"))
    assert f"search/finds/inlp/{SCORES}" in known
    record = json.loads((finished / "search/search.json").read_text(encoding="utf-8"))
    places = (finished / "search", folder_of(finished / "directions.safetensors"))
    there = {path.relative_to(finished).as_posix() for place in places for path in place.rglob("*") if path.is_file()}
    assert there - {f"search/{name}" for name in record["files"]} <= set(known)


def test_a_finished_run_does_nothing_again(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    run(recipe(), tmp_path / "out", resume=True)
    said = log(tmp_path / "out").removeprefix(log(finished))
    assert "search: unchanged, not done again" in said
    assert "the edited model is finished already" in said


def test_another_rule_takes_another_point_without_scoring(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    before = json.loads((finished / "run.json").read_text(encoding="utf-8"))["summary"]["search"]
    others = [n for n, each in enumerate(before["front"], 1) if each["digest"] != before["picked"]]
    assert others, "a front of one point shows nothing"
    monkeypatch.setattr(score.Scorer, "scores", lambda *given, **options: pytest.fail("it scores"))
    result = run(recipe(pick=str(others[0])), tmp_path / "out", resume=True)
    found = result.summary["search"]
    assert found["picked"] == before["front"][others[0] - 1]["digest"]
    assert found["front"] == before["front"]
    first, second = (read_manifest(folder / "model") for folder in (finished, tmp_path / "out"))
    assert first is not None
    assert second is not None
    assert first["edit"]["steps"] != second["edit"]["steps"]


def test_a_run_that_was_stopped_in_its_search_goes_on_with_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Journal.stage

    def stopped(journal: Journal, name: str, units: Any) -> Any:
        if name.startswith("judging"):
            raise KeyboardInterrupt
        return stage(journal, name, units)

    monkeypatch.setattr(Journal, "stage", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), tmp_path / "out")
    monkeypatch.setattr(Journal, "stage", stage)
    # A run that was stopped may be thrown away, too: all that is in it is its own.
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    result = run(recipe(), tmp_path / "out", resume=True)
    before = json.loads((finished / "run.json").read_text(encoding="utf-8"))["summary"]["search"]
    assert {**result.summary["search"], "seconds": None} == {**before, "seconds": None}
    monkeypatch.setattr(Journal, "stage", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(trials=0), tmp_path / "other", overwrite=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": {"trails": 3}}, "'search.trails' is not a key of a recipe; did you mean 'trials'"),
        ({"search": {"sampler": "annealing"}}, "'search.sampler'.*tpe, cma-es, nsga-ii, random"),
        ({"search": {"rounds": -1}}, "'search.rounds'"),
        ({"edit": {"strength": 0.5}}, "'edit.strength' is what 'search' picks; leave it out"),
        ({"edit": {"then": [{"kind": "reflect"}]}}, "'edit.then' is what 'search' picks"),
        ({"edit": {"kernel": {"mlp": [1.0]}}}, "'edit.kernel' is what 'search' picks"),
        ({"edit": {"embeddings": "skip"}}, "'edit.embeddings'.*both or untie"),
        ({"find": None}, "'search' begins with what 'find' finds"),
        # A recipe is anybody's: it connects nowhere, and writes nowhere but in the run's folder.
        ({"search": {"storage": "postgresql://me:secret@host/db"}}, "'search.storage' is not a key of a recipe"),
        ({"search": {"storage": "sqlite:////tmp/search.db"}}, "'search.storage' is not a key of a recipe"),
    ],
)
def test_a_wrong_section_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_recipe({**CONTENT, **changes})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pick": "best"}, "`pick=best`: write refusal<="),
        ({"over_refused": "organism:nobody"}, "nobody"),
        ({"pick": "refusal<=0.1,over-refusal<=0.1", "over_refused": None}, "over-refusal needs prompts of its own"),
    ],
)
def test_what_cannot_be_is_told_without_torch(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_recipe(recipe(**changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"descent": {"stpes": 3}}, r"search\.descent: 'stpes' is not a key; did you mean 'steps'"),
        ({"finders": {"nobody": {}}}, "no method 'nobody'"),
        ({"finders": {"pca": {"nothing": 1}}}, "'nothing'"),
        ({"judged": 3}, "`judged=3`: must be at least 8"),
    ],
)
def test_a_wrong_setting_is_told_before_anything_is_measured(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        run(recipe(**changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_edit_as_a_whole_goes_with_a_search() -> None:
    both = parse_recipe({**CONTENT, "edit": {"embeddings": "untie", "rounding": "nearest"}})
    assert both.edit is not None
    assert (both.edit.embeddings, both.edit.rounding) == ("untie", "nearest")
    studied = parse_recipe({**CONTENT, "studies": [{"kind": "compare"}]})
    assert studied.edit is not None, "beside studies a search bakes what it picks"


def test_every_setting_reaches_the_request() -> None:
    from weight_edit.runs.directions import Search

    given = recipe(
        over_refused="organism:over-refused:train", sampler="random", rounds=2, finders={"pca": {}}, known_answers=False
    )
    assert given.find is not None
    assert given.search is not None
    request = search_request(given, Search.of(given.find, 7).request)
    assert request.over_refused is not None
    assert request.over_refused.name == "organism:over-refused:train"
    apart = {"over_refused", "batch_size"}
    for name, value in given.search.model_dump(exclude=apart).items():
        assert getattr(request, name) == value, name


def test_descents_in_a_model_on_disk_are_refused_before_a_step_is_done(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`descents`: gradients need the whole model in memory") as caught:
        run(
            parse_recipe({**CONTENT, "offload": True, "search": {**CONTENT["search"], "descents": 1}}), tmp_path / "out"
        )
    assert caught.value.options == ("descents", "offload")
    assert not (tmp_path / "out").exists()
