"""Recipes are validated before anything runs, and every shipped one is valid."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from weight_edit.errors import UsageError
from weight_edit.plan.plan import parse_layers
from weight_edit.recipe.bundled import OVERLAYS
from weight_edit.recipe.overrides import override_entry
from weight_edit.recipe.recipe import Bounds, load_recipe, parse_recipe
from weight_edit.runs.bounds import beyond_bounds
from weight_edit.utils.progress import quieted

FOLDER = Path(__file__).parents[2] / "recipes"
OVERLAY = FOLDER / "hub.yaml"
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if path != OVERLAY)
assert RECIPES, FOLDER
MINIMAL = {"model": "m", "find": {"target": "t", "baseline": "b"}}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipes_are_valid_and_say_what_they_are(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.title
    assert path.read_text(encoding="utf-8").startswith("#")


def test_the_defaults_are_the_papers() -> None:
    find = parse_recipe(MINIMAL).find
    assert (find.n_train, find.n_validation) == (128, 32)
    assert (find.max_kl, find.min_induce, find.max_layer_fraction) == (0.1, 0.0, 0.8)


def test_no_recipe_that_comes_with_the_package_pushes() -> None:
    assert all(load_recipe(path).push is None for path in RECIPES)
    assert "push" not in OVERLAY.read_text(encoding="utf-8")


PUSH = {"repo": "me/model", "private": True}


@pytest.mark.parametrize(
    ("push", "message"),
    [
        ({"repo": "me/model"}, "'push.private' is missing"),
        ({"private": True}, "'push.repo' is missing"),
        ({**PUSH, "token": "x"}, "'push.token' is not a key of a recipe"),
        ({**PUSH, "repo": "model"}, "'push': 'model' is no repository id"),
        ({**PUSH, "repo": "https://hub/me/model"}, "'push': .* is no repository id"),
        ({**PUSH, "branch": "a b"}, "'push': .* is no name that a branch can have"),
        ({**PUSH, "branch": "refs/pr/1", "create_pr": True}, "'push': refs/pr/1 is a pull request already"),
        ({**PUSH, "private": "yes please"}, "'push.private'"),
    ],
)
def test_where_a_recipe_pushes_is_said_in_full(push: dict, message: str) -> None:
    assert parse_recipe({**MINIMAL, "push": PUSH}).push is not None
    with pytest.raises(UsageError, match=message):
        parse_recipe({**MINIMAL, "push": push})


def test_a_recipe_without_a_model_pushes_nothing() -> None:
    with pytest.raises(UsageError, match="bakes no model to push"):
        parse_recipe({**MINIMAL, "studies": [{"kind": "sweep"}], "push": PUSH})


@pytest.mark.parametrize("place", ["title", "push.repo", "find.options.key", "judges", "keys"])
@pytest.mark.parametrize("token", ["hf_" + "a" * 34, "mine-and-in-the-environment"])
def test_a_token_in_a_recipe_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, place: str, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", "mine-and-in-the-environment\n")
    content: dict = {**MINIMAL, "find": {**MINIMAL["find"], "options": {"key": "x"}}, "push": dict(PUSH)}
    if place == "judges":
        content["evaluate"] = {"judges": ["phrases", {"kind": "server", "options": {"key": f"Bearer {token}"}}]}
    elif place == "keys":
        content[token] = 1
    else:
        override_entry(content, f"{place}=see {token}")
    named = {"judges": "evaluate.judges.1.options.key", "keys": "a key"}.get(place, place)
    with pytest.raises(UsageError, match=f"'{named}' holds an access token") as caught:
        parse_recipe(content)
    assert token not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({**MINIMAL, "modle": "x"}, "'modle' is not a key of a recipe; did you mean 'model'"),
        ({"modle": "x", "find": MINIMAL["find"]}, "did you mean 'model'"),
        ({**MINIMAL, "find": {**MINIMAL["find"], "n_trian": 3}}, "'find.n_trian'.*did you mean 'n_train'"),
        ({**MINIMAL, "edit": {"zzz": 3}}, "'edit.zzz'.*known keys: kind, strength, layers, directions"),
        ({**MINIMAL, "max_kl": 3}, "'max_kl'.*did you mean 'find.max_kl' or 'bounds.max_kl'"),
        ({**MINIMAL, "prompts": {"refused": "x"}, "edit": {"dtype": "float32"}}, "'edit.dtype'.*did you mean 'dtype'"),
        (
            {"model": "m", "prompts": {"a": "x", "b": "x", "aa": "x"}, "find": {"target": "@a", "baseline": "@b"}},
            "nothing in the recipe asks for 'prompts.aa'; did you mean 'prompts.a'",
        ),
        (
            {**MINIMAL, "directions": {"mian": "x.safetensors"}},
            "'directions.mian': no edit and no study asks for them; the edit takes 'main'",
        ),
        ({"model": "m"}, "'find' is missing"),
        ({**MINIMAL, "edit": {"strength": "high"}}, "'edit.strength'.*'high'"),
        ({**MINIMAL, "edit": {"strength": 0}}, "'edit.strength'"),
        ({**MINIMAL, "edit": {"layers": "7-3"}}, "'edit.layers': layers '7-3' is no range"),
        ({**MINIMAL, "edit": {"base_model": ""}}, "'edit.base_model'.*is no Hub id"),
        ({**MINIMAL, "edit": {"embeddings": "drop"}}, "'edit.embeddings'.*choose one of both, untie, skip"),
        ({**MINIMAL, "bounds": {"max_refusal": 1.5}}, "'bounds.max_refusal'"),
        ({"model": "m", "finds": {"a": MINIMAL["find"]}, "edit": {"kind": "reflect"}}, "'find' is missing"),
        ({**MINIMAL, "edit": {"kind": "reflect", "at": "where"}}, "'edit.at': write numbers of layers, such as 3 or"),
        ({**MINIMAL, "edit": {"kind": "reflect", "at": [True]}}, "'edit.at': write numbers"),
        ({**MINIMAL, "finds": {"main": MINIMAL["find"]}}, "'main' is taken"),
        ({**MINIMAL, "finds": {"random": MINIMAL["find"]}}, "'random' is taken"),
        ({**MINIMAL, "finds": {"two words": MINIMAL["find"], "Two-Words": MINIMAL["find"]}}, "the same file"),
        ({**MINIMAL, "finds": {"数学": MINIMAL["find"], "语言": MINIMAL["find"]}}, "the same file"),
    ],
)
def test_a_wrong_entry_is_named_with_the_right_one(content: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_recipe(content)


@pytest.mark.parametrize(("given", "word"), [(True, "first-token"), (False, "none"), ("answers", "answers")])
def test_the_filter_of_prompts_was_a_switch(given: bool | str, word: str) -> None:
    find = parse_recipe({**MINIMAL, "find": {**MINIMAL["find"], "filter_prompts": given}}).find
    assert find is not None
    assert find.filter_prompts == word


def test_a_searchs_judge_is_known_before_anything_runs() -> None:
    with pytest.raises(UsageError, match="did you mean 'phrases'"):
        parse_recipe({**MINIMAL, "find": {**MINIMAL["find"], "judge": "phrase"}})


def test_a_methods_alias_is_recorded_as_its_name() -> None:
    assert parse_recipe({**MINIMAL, "find": {**MINIMAL["find"], "method": "rdo"}}).find.method == "gradient"


def test_a_layer_may_stand_alone() -> None:
    assert parse_recipe({**MINIMAL, "edit": {"kind": "reflect", "at": 3}}).edit.at == [3]
    assert parse_recipe({**MINIMAL, "edit": {"kind": "reflect", "at": "found"}}).edit.at == "found"


def test_overrides(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: a\nfind: {target: t, baseline: b}\n", encoding="utf-8")
    recipe = load_recipe(file, ["model=org/name", "edit.strength=0.5", "edit.layers=3", "evaluate.limit=4"])
    assert (recipe.model, recipe.edit.strength, recipe.edit.layers, recipe.evaluate.limit) == ("org/name", 0.5, "3", 4)
    for wrong in ("edit", "model.x=1", "edit.strength=[", "=3"):
        with pytest.raises(UsageError, match="`overrides: "):
            load_recipe(file, [wrong])


@pytest.mark.parametrize("model", [None, "org/name"])
def test_a_set_of_a_name_for_which_nothing_asks_is_refused_in_an_override_and_an_overlay(
    model: str | None, tmp_path: Path
) -> None:
    said = "nothing in the recipe asks for 'prompts.refuse'; did you mean 'prompts.refused'"
    with pytest.raises(UsageError, match=f"`overrides: prompts.refuse=x`: {said}"):
        load_recipe("refusal-direction", ["prompts.refuse=x"], model=model)
    mine = tmp_path / "mine.yaml"
    mine.write_text("prompts: {refuse: x}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=rf"mine\.yaml: {said}"):
        load_recipe("refusal-direction", (), [mine], model)
    # A name that other recipes have would change nothing in this one either; in a file for several it may stand.
    with pytest.raises(UsageError, match=r"asks for 'prompts\.over-refused'"):
        load_recipe("refusal-direction", ["prompts.over-refused=x"], model=model)
    mine.write_text("prompts: {over-refused: x, refused: y}\n", encoding="utf-8")
    assert load_recipe("refusal-direction", ["prompts.answered=@own", "prompts.own=z"], [mine], model).find == (
        load_recipe("refusal-direction", ["find.target=y", "find.baseline=z"], model=model).find
    )


def test_what_a_recipe_asks_for_by_itself_may_be_left_unused_by_what_is_laid_over_it(tmp_path: Path) -> None:
    recipe, over = tmp_path / "r.yaml", tmp_path / "over.yaml"
    recipe.write_text(
        "model: m\nprompts: {mine: a, other: b}\nfind: {target: '@mine', baseline: '@other'}\n"
        "directions: {old: old.safetensors, new: new.safetensors}\n"
        "edit: {directions: old, then: [{directions: new}]}\n",
        encoding="utf-8",
    )
    over.write_text("find: {target: c}\n", encoding="utf-8")
    for found in (load_recipe(recipe, ["find.target=c"]), load_recipe(recipe, (), [over])):
        assert found.find is not None
        assert (found.find.target, found.find.baseline) == ("c", "b")
    assert [step.directions for step in load_recipe(recipe, ["edit.then=[]"]).edit.steps] == ["old"]
    for wrong in ("prompts.mnie=c", "directions.odl=x.safetensors"):
        with pytest.raises(UsageError, match=wrong.partition("=")[0]):
            load_recipe(recipe, [wrong])


def test_the_recipe_of_a_runs_folder_has_no_names_to_set(tmp_path: Path) -> None:
    kept = tmp_path / "recipe.yaml"
    kept.write_text(yaml.safe_dump(load_recipe("concept").model_dump(mode="json")), encoding="utf-8")
    assert load_recipe(kept, ["find.target=@mine", "prompts.mine=x"]).find.target == "x"
    with pytest.raises(UsageError, match=r"asks for a prompt set by name.*set the entry itself, such as find\.target"):
        load_recipe(kept, ["prompts.refused=x"])


def test_overrides_reach_into_lists_by_number(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: a\nfind: {target: t, baseline: b}\nstudies: [{kind: sweep}]\n", encoding="utf-8")
    recipe = load_recipe(file, ["studies.0.options.strengths=[2]"])
    assert recipe.studies[0].options == {"strengths": [2]}
    for wrong in ("studies.1.kind=x", "studies.first.kind=x", "studies.2=x", f"studies.{'9' * 5000}=x"):
        with pytest.raises(UsageError, match="is not the number of an entry, from 0 to 0"):
            load_recipe(file, [wrong])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_name_of_a_set_is_resolved_wherever_it_stands(path: Path, overlay: str) -> None:
    for overlays in ((), (overlay,)):
        recipe = load_recipe(path, (), overlays)
        assert not [text for text in _texts(recipe.model_dump()) if text.startswith("@")]
    assert recipe.verify.prompts == "harmless-alpaca:test[:100]"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(entry)


def test_names_may_stand_for_one_another_but_not_for_themselves() -> None:
    content = {**MINIMAL, "prompts": {"a": "@b", "b": "set"}, "verify": {"prompts": "@a"}}
    assert parse_recipe(content).verify.prompts == "set"
    with pytest.raises(UsageError, match="@b -> @a -> @b stands for itself"):
        parse_recipe({**content, "prompts": {"a": "@b", "b": "@a"}})


def test_bundled_recipes_have_names_and_files_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "organism").mkdir()
    assert load_recipe("organism") == load_recipe(FOLDER / "organism.yaml")
    assert load_recipe("som", (), ["hub"]) == load_recipe(FOLDER / "som.yaml", (), [OVERLAY])
    (tmp_path / "som").write_text("model: mine\nfind: {target: t, baseline: b}\n", encoding="utf-8")
    assert load_recipe("som").model == "mine"


@pytest.mark.parametrize(
    ("name", "near"), [("organsm", "organism"), ("recipes/organism.yaml", "organism"), ("refusal", "refusal-cone")]
)
def test_an_unknown_recipe_is_answered_with_the_nearest_and_the_list(
    name: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"did you mean '{near}'.*affine, cleaned, .*, thinking$"):
        load_recipe(name)
    with pytest.raises(UsageError, match="there is no overlay hbu; did you mean 'hub'"):
        load_recipe("organism", (), ["hbu"])


def test_a_file_that_is_missing_is_answered_with_those_beside_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no recipe \S+/02-aaaa\.yaml$"):
        load_recipe(tmp_path / "points" / "02-aaaa.yaml")
    (tmp_path / "points").mkdir()
    for number in range(1, 9):
        (tmp_path / "points" / f"{number:02d}-bbbb.yaml").touch()
    with pytest.raises(UsageError, match=r"points has 01-bbbb\.yaml, .*06-bbbb\.yaml and others$"):
        load_recipe(tmp_path / "points" / "02-aaaa.yaml")


OWN = ("cleaned", "concept", "defended", "methods", "refusal-direction", "thinking")


@pytest.mark.parametrize("name", OWN)
def test_for_a_model_of_ones_own_public_sets_take_the_place_of_the_embedded_models(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with quieted(False):
        recipe = load_recipe(name, model="org/name")
    overlaid = load_recipe(name, ["model=org/name"], ["hub"])
    assert {name for name, each in recipe.searches.items() if not each.best_effort} == set()
    without = recipe.model_dump(exclude={"find": {"best_effort"}, "finds": {"__all__": {"best_effort"}}})
    assert without == overlaid.model_dump(exclude={"find": {"best_effort"}, "finds": {"__all__": {"best_effort"}}})
    assert (recipe.model, recipe.overlays) == ("org/name", ["hub"])
    assert not [text for text in _texts(recipe.model_dump()) if text.startswith("organism")]
    assert "for org/name the overlay hub is laid over the recipe: public prompt sets" in capsys.readouterr().err


def test_an_embedded_model_keeps_the_recipe_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with quieted(False):
        recipe = load_recipe("refusal-direction", model="organism-defended")
    assert recipe == load_recipe("refusal-direction", ["model=organism-defended"])
    assert recipe.overlays == []
    assert "overlay" not in capsys.readouterr().err


def test_sets_and_settings_of_ones_own_stay(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "model: a\nprompts: {refused: mine.txt, answered: organism:answered:train}\n"
        'find: {target: "@refused", baseline: "@answered"}\nbounds: {max_kl: 0.3}\n',
        encoding="utf-8",
    )
    recipe = load_recipe(file, ["evaluate.limit=4"], model="org/name")
    assert (recipe.find.target, recipe.find.baseline) == ("mine.txt", "harmless-alpaca:train[:1000]")
    assert not load_recipe(file, ["find.best_effort=false"], model="org/name").find.best_effort
    assert recipe.evaluate.limit == 4
    file.write_text(
        "model: a\nfind: {target: mine.txt, baseline: other.txt}\nbounds: {max_kl: 0.3}\n", encoding="utf-8"
    )
    recipe = load_recipe(file, model="org/name")
    assert (recipe.model, recipe.overlays, recipe.bounds.max_kl) == ("org/name", [], 0.3)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        (
            "languages",
            (),
            "studies.0.options.sets.* is a prompt set of the embedded model, which says nothing of org/name",
        ),
        ("eleven-categories", (), r"studies\.0\.options\.categories\.dangerous\.target \(and 10 more entries\)"),
        ("som", ("model=org/other",), "the model is given twice, as org/name and as org/other"),
        ("som", ("prompts.refused=organism:refused",), "prompts.refused is a prompt set of the embedded model"),
    ],
)
def test_prompts_of_the_embedded_model_are_refused_for_another(
    name: str, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(name, overrides, model="org/name")


def test_overlays_are_recorded_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("evaluate: {limit: 3}\n", encoding="utf-8")
    recipe = load_recipe("som", (), [file, "hub"], model="org/name")
    assert recipe.overlays == ["hub", "mine"]
    assert recipe.evaluate.limit == 100


@pytest.mark.parametrize(("text", "thinking"), [("off", "off"), ("on", "on"), ("'off'", "off"), ("null", None)])
def test_thinking_needs_no_quotes(text: str, thinking: str | None) -> None:
    assert load_recipe("organism", [f"thinking={text}"]).thinking == thinking


def test_directions_may_all_have_names() -> None:
    content = {"model": "m", "finds": {"a": MINIMAL["find"]}, "edit": {"kind": "reflect", "directions": "a"}}
    recipe = parse_recipe(content)
    assert list(recipe.searches) == ["a"]


@pytest.mark.parametrize("text", ["- a\n- b\n", "model: [\n", "\x00"])
def test_files_that_are_no_recipe(text: str, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"r\.yaml"):
        load_recipe(file)
    with pytest.raises(UsageError, match="no recipe"):
        load_recipe(tmp_path / "absent.yaml")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("model: !!python/object/apply:os.system ['true']\n", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be read"):
        load_recipe(file)


@pytest.mark.parametrize(("text", "layers"), [("3", {3}), ("0-2", {0, 1, 2}), ("1,4-5", {1, 4, 5}), (None, None)])
def test_layers(text: str | None, layers: set[int] | None) -> None:
    assert parse_layers(text) == layers


@pytest.mark.parametrize("text", ["", "a", "-1", "3-", "4-2", "1,,2"])
def test_layers_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no range"):
        parse_layers(text)


def rate(value: float) -> dict:
    return {"value": value}


EDITED = {
    "sets": {
        "refused": {"refusal": rate(0.05), "exact": rate(0.9)},
        "answered": {"refusal": rate(0.0), "exact": rate(0.95), "loss": {"mean": 0.2}},
    },
    "divergence": {"mean": 0.02},
}
BASELINE = {"sets": {"answered": {"loss": {"mean": 0.1}}}}


def test_an_edit_within_all_bounds() -> None:
    bounds = Bounds(max_refusal=0.1, min_answers_right=0.9, min_helpful_recovered=0.8, max_kl=0.1)
    assert beyond_bounds(bounds, BASELINE, EDITED) == []


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        (Bounds(max_refusal=0.01), "bounds.max_refusal: refusal is 0.05, above 0.01"),
        (Bounds(min_answers_right=0.99), "bounds.min_answers_right: answers right is 0.95, below 0.99"),
        (Bounds(min_helpful_recovered=0.99), "bounds.min_helpful_recovered"),
        (Bounds(max_kl=0.01), "bounds.max_kl"),
        (Bounds(min_refusal=0.9), "bounds.min_refusal: refusal is 0.05, below 0.9"),
        (Bounds(min_ordinary_refused=0.9), "bounds.min_ordinary_refused: refusal of ordinary requests is 0, below 0.9"),
        (Bounds(max_loss_increase=0.05), "bounds.max_loss_increase"),
        (Bounds(max_over_refusal=0.5), "bounds.max_over_refusal: over-refusal was not measured"),
    ],
)
def test_a_missed_bound_is_named(bounds: Bounds, named: str) -> None:
    (problem,) = beyond_bounds(bounds, BASELINE, EDITED)
    assert problem.startswith(named)


def test_what_is_not_a_number_is_beyond_every_bound() -> None:
    broken = {**EDITED, "divergence": {"mean": float("nan")}}
    assert beyond_bounds(Bounds(), BASELINE, broken) != []


def test_refusal_that_nobody_could_judge_keeps_no_bound() -> None:
    note = "all 2 answers to the refused set are undecided: 2 were cut at 8 tokens within a thought"
    verdicts = {"refused": 0, "answered": 0, "undecided": 2}
    unjudged = {"sets": {"refused": {"refusal": rate(0.0), "verdicts": verdicts}}, "notes": [note]}
    (problem,) = beyond_bounds(Bounds(max_refusal=0.1, max_kl=None, max_loss_increase=None), {}, unjudged)
    assert problem == f"bounds.max_refusal: refusal was not measured; {note}"
    judged = {"sets": {"refused": {"refusal": rate(0.0), "verdicts": {**verdicts, "answered": 1}}}}
    assert beyond_bounds(Bounds(max_refusal=0.1, max_kl=None, max_loss_increase=None), {}, judged) == []


def test_a_value_of_a_few_is_refused_with_the_nearest() -> None:
    content = {"model": "organism", "find": {"target": "a", "baseline": "b", "select": "acuracy"}}
    with pytest.raises(UsageError, match=r"'find.select': there is no such value 'acuracy'; did you mean 'accuracy'\?"):
        parse_recipe(content)
    content = {"model": "organism", "find": {"target": "a", "baseline": "b"}, "edit": {"kind": "ablat"}}
    with pytest.raises(UsageError, match=r"'edit.kind': there is no edit 'ablat'; did you mean 'ablate'\?"):
        parse_recipe(content)


def test_judges_of_a_recipe_are_names_or_kinds_with_options() -> None:
    base = {"model": "organism", "studies": [{"kind": "compare"}]}

    def judges(*given: object) -> list[str]:
        return [str(spec) for spec in parse_recipe({**base, "evaluate": {"judges": list(given)}}).evaluate.specs]

    assert [str(spec) for spec in parse_recipe(base).evaluate.specs] == ["phrases"]
    assert judges("published", {"kind": "extended", "options": {"early": 20}}) == ["published", "phrases,early=20"]
    for wrong, reason in (("strict", "no judge 'strict'"), ({"kind": "phrases", "options": {"late": 1}}, "'late'")):
        with pytest.raises(UsageError, match=reason):
            judges(wrong)
    with pytest.raises(UsageError, match="at least 1"):
        judges()
