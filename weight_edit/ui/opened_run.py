"""What the page takes of a run of the command line, whose file others may have written, and what it does not."""

import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import printable, read_whole
from weight_edit.errors import WeightEditError
from weight_edit.recipe.recipe import EditSection, Evaluate, Find, Recipe, Search, Verify
from weight_edit.runtime.dtypes import DTYPES
from weight_edit.ui.settings import Settings
from weight_edit.utils.json import parse_json
from weight_edit.utils.registry_listing import Registered, canonical, registered
from weight_edit.utils.settings import Section

_STATE = "run.json"
_MOST = 200_000_000

_FIELDS = {
    "model": "model",
    "dtype": "dtype",
    "device": "device",
    "find.target": "target",
    "find.baseline": "baseline",
    "find.method": "method",
    "find.max_kl": "max_kl",
    "find.best_effort": "best_effort",
    "find.confirm": "confirm",
    "search.over_refused": "over_refused",
    "search.trials": "trials",
    "search.descents": "descents",
    "search.judged": "judged",
    "search.pick": "pick",
    "edit.kind": "kind",
    "edit.strength": "strength",
    "edit.layers": "layers",
    "evaluate.refused": "test_refused",
    "evaluate.answered": "test_answered",
    "evaluate.over_refused": "test_over_refused",
    "evaluate.harmless_looking": "test_harmless",
    "evaluate.limit": "limit",
    "verify.prompts": "test_answered",
}
"""The page's field of each entry of a recipe that has one."""

_SECTIONS: Mapping[str, type[Section]] = {
    "": Recipe,
    "find": Find,
    "search": Search,
    "edit": EditSection,
    "evaluate": Evaluate,
    "verify": Verify,
}

_OF_NO_ACCOUNT = ("title", "prompts", "bounds", "push", "overlays", "verify.limit", *_SECTIONS)
"""Entries that change neither what is found nor what is measured; names of prompt sets stand resolved elsewhere."""

_SHOWN = 60


def read_recipe(run: Path) -> Mapping[str, Any] | None:
    """The recipe in a run's folder; None where there is none that can be read."""
    recipe = _read_state(run).get("recipe")
    return recipe if isinstance(recipe, dict) else None


def read_summary(run: Path) -> Mapping[str, Any]:
    """The summary in a run's folder; empty where there is none that can be read."""
    return _section(_read_state(run), "summary")


def is_searched(recipe: Mapping[str, Any]) -> bool:
    """Whether the edit of a recipe is what a search picks, with strengths that the recipe does not say."""
    return isinstance(recipe.get("search"), dict)


def settings_of(recipe: Mapping[str, Any]) -> Settings:
    """The settings that a recipe says.

    What it does not measure stays unmeasured. A value that its field cannot have is left out.
    """
    values = {field: value for name, value in _entries(recipe) if (field := _FIELDS.get(name)) and name[:6] != "verify"}
    targets = values.get("target")
    values["target"] = targets[0] if isinstance(targets, list) and targets else targets
    if isinstance(values.get("method"), str):
        values["method"] = canonical(values["method"], _methods())
    usable = {name: value for name, value in values.items() if value is not None and _usable(name, value)}
    model = recipe.get("model")
    # Prompts to go on with are those for its model; what is measured is what it measured.
    base = Settings().on_model(model if isinstance(model, str) else "")
    unmeasured = dict.fromkeys(("test_refused", "test_answered", "test_over_refused", "test_harmless"), "")
    return base.changed({**unmeasured, "limit": 0, **usable})


def left_out(recipe: Mapping[str, Any]) -> list[str]:
    """What a recipe says that the page has no field for, or that its field cannot have: "thinking = "off""."""
    settings = settings_of(recipe).to_dict()
    found = []
    for name, value in _entries(recipe):
        field = _FIELDS.get(name)
        taken = field is not None and (settings[field] == value or (value is None and not settings[field]))
        if not taken and name not in _OF_NO_ACCOUNT and (field is not None or value != _default(name)):
            found.append(printable(f"{name} = {json.dumps(value)}", _SHOWN))
    return found


def _usable(field: str, value: object) -> bool:
    """Whether the page's field can have a value: one that it cannot would stop every button."""
    if field in _choices():
        return isinstance(value, str) and value in _choices()[field]
    if field == "strength":
        return isinstance(value, int | float) and 0 <= value <= 2
    if field in ("limit", "trials", "descents", "judged", "confirm"):
        return isinstance(value, int | float) and value >= 0
    return isinstance(value, str | int | float)


@cache
def _choices() -> Mapping[str, Collection[str]]:
    """The values of the fields that are chosen from a list."""
    return {"dtype": DTYPES, "kind": registered("edits/kinds", "edit"), "method": _methods()}


@cache
def _methods() -> Mapping[str, Registered]:
    return registered("directions/finders", "finder")


def _entries(recipe: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of a recipe and of its sections, such as "edit.kind", with their values."""
    for section in _SECTIONS:
        content = _section(recipe, section) if section else recipe
        for name, value in content.items():
            yield (f"{section}.{name}" if section else name), value


def _default(name: str) -> object:
    """What an entry is where a recipe does not say it."""
    section, _, entry = name.rpartition(".")
    known = _SECTIONS[section].model_fields.get(entry) if section in _SECTIONS else None
    value = None if known is None else known.get_default(call_default_factory=True)
    return list(value) if isinstance(value, tuple) else value


def _read_state(run: Path) -> Mapping[str, Any]:
    try:
        found = parse_json(read_whole(run / _STATE, _MOST).decode("utf-8"), constants=True)
    except (WeightEditError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _section(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = content.get(name)
    return section if isinstance(section, dict) else {}
