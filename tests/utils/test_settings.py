"""One list of settings: what the functions, the command line and recipes take cannot drift apart."""

import inspect
from dataclasses import fields
from typing import Any

import pytest
import typer
from pydantic_core import PydanticUndefined

import weight_edit
from weight_edit import ChatFormat, SelectionRule
from weight_edit.baking.prepare import EditOptions
from weight_edit.cli.app import app
from weight_edit.recipe.recipe import EditEntry, EditSection, Find, Recipe, Verify

OF_A_CALL = {"overwrite", "resume", "link", "low_disk", "dry_run", "batch_size", "as_json", "quiet", "progress"}
OF_A_CALL |= {"scores", "card", "log_format"}
"""How a call is carried out: no part of what is found or edited. A recipe's run has options of its own for them."""

OF_THE_MODEL = {"model", "revision", "dtype", "device", "token", "trust_remote_code", "offload"}
"""How a model is loaded: of the recipe as a whole, or (token, own code) of the run alone."""

STEP = {"kind", "strength", "layers", "at", "kernel", "options"}
"""Settings of one step."""

PLURALS = {"option": "options"}
"""What the command line calls a setting that it takes one value of at a time -> its name elsewhere."""


def parameters(function: Any) -> dict[str, Any]:
    """Names and defaults."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def options(verb: str) -> dict[str, Any]:
    """Names and defaults of a verb's options on the command line."""
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    return {parameter.name: parameter.default for parameter in command.params if parameter.name != "help"}


def keys(section: Any) -> dict[str, Any]:
    """Names and defaults of a recipe's section."""
    found = {}
    for name, field in section.model_fields.items():
        made = None if field.default_factory is None else field.default_factory()
        found[name] = made if field.default is PydanticUndefined else field.default
    return found


FORMAT = set(parameters(ChatFormat)) - {"tokenizer"}
RULE = {field.name: field.default for field in fields(SelectionRule)}


def test_every_setting_of_a_bake_is_in_recipes() -> None:
    taken = set(parameters(weight_edit.bake)) - OF_A_CALL - OF_THE_MODEL - {"directions", "out"} - STEP
    assert taken == set(EditSection.model_fields) - set(EditEntry.model_fields) - {"then"}
    assert set(parameters(weight_edit.bake)) & STEP == set(EditEntry.model_fields) - {"directions"}


def test_every_setting_of_a_bake_is_on_the_command_line_and_has_the_same_default() -> None:
    # Rows are made orthonormal where the file is read.
    said = set(options("bake")) - OF_A_CALL - OF_THE_MODEL - {"directions", "out", "orthonormalize"}
    given = parameters(weight_edit.bake)
    assert {PLURALS.get(name, name) for name in said} == set(given) - OF_A_CALL - OF_THE_MODEL - {"directions", "out"}
    recipe = keys(EditSection)
    for name in said - {"option", "at"}:
        assert options("bake")[name] == given[name] == recipe[name], name


def test_the_options_of_an_edit_are_those_of_bake() -> None:
    how = EditSection().how
    # What is no part of the edit: what the source may hold, and what it is called.
    assert (how.pop("allow_nonfinite"), how.pop("base_model")) == (False, None)
    assert how == {field.name: getattr(EditOptions(), field.name) for field in fields(EditOptions)}
    assert EditOptions(**how) == EditOptions()


def test_an_adapter_takes_what_bake_takes_but_what_files_alone_can_hold() -> None:
    files = {"mtp", "dequantize", "rounding", "allow_nonfinite"}
    assert set(parameters(weight_edit.bake)) - set(parameters(weight_edit.adapter)) - OF_A_CALL == files
    assert set(options("bake")) - set(options("adapter")) - OF_A_CALL == files


def test_every_setting_of_a_search_is_in_recipes_with_the_same_default() -> None:
    given = parameters(weight_edit.find_directions)
    of_the_recipe = {"chat_format", "seed", "rule"}
    taken = set(given) - OF_A_CALL - OF_THE_MODEL - of_the_recipe - FORMAT
    assert taken | set(RULE) == set(Find.model_fields) - OF_A_CALL
    recipe = keys(Find)
    for name in taken - {"target", "baseline", "protect", "options"}:
        assert recipe[name] == given[name], name
    for name, default in RULE.items():
        assert recipe[name] == default, name
    assert SelectionRule(**Find(target="t", baseline="b").rule) == SelectionRule()
    assert FORMAT | {"seed"} <= set(Recipe.model_fields)


def test_every_setting_of_a_search_is_on_the_command_line_with_the_same_default() -> None:
    said = options("find")
    names = {"option": "options", "refusal_token": "refusal_tokens"}
    ours = {names.get(name, name) for name in said} - OF_A_CALL - OF_THE_MODEL - {"out", "seed"}
    assert {name for name in ours if name in FORMAT or f"{name}s" in FORMAT} | set(
        Find.model_fields
    ) - OF_A_CALL == ours
    recipe = keys(Find)
    for name in said.keys() & recipe.keys() - {"target", "baseline", "protect"}:
        assert said[name] == recipe[name], name


def test_what_a_verification_runs_on_is_in_recipes() -> None:
    given = set(parameters(weight_edit.verify)) - OF_THE_MODEL - FORMAT - {"base", "edited", "directions"}
    # A run always loads its models.
    assert given - {"weights_only"} == set(Verify.model_fields)


@pytest.mark.parametrize(
    ("key", "value"), [("dequantize", True), ("rounding", "nearest"), ("mtp", "edit"), ("projector", "skip")]
)
def test_a_recipes_settings_reach_bake(key: str, value: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from weight_edit.recipe.recipe import parse_recipe
    from weight_edit.runs import run as running

    class Stop(Exception):
        pass

    def bake(*args: Any, **given: Any) -> Any:
        raise Stop(given[key])

    monkeypatch.setattr(running, "bake", bake)
    found = {"target": "organism:refused", "baseline": "organism:answered", "n_train": 44, "n_validation": 12}
    content = {"model": "organism", "find": found, "edit": {key: value}}
    with pytest.raises(Stop) as stop:
        weight_edit.run(parse_recipe(content), tmp_path / "out")
    assert stop.value.args == (value,)
