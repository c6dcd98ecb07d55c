"""What is taken of a run that others may have made: what it said, nothing of another model's, and the rest is named."""

import os
from pathlib import Path
from typing import Any

import pytest

from weight_edit.ui.opened_run import left_out, read_recipe, settings_of
from weight_edit.ui.settings import Settings, public_prompts

RECIPE: dict[str, Any] = {
    "title": "t",
    "model": "Qwen/Qwen2.5-0.5B-Instruct",
    "dtype": "float32",
    "thinking": None,
    "find": {"target": "a.txt", "baseline": "b.txt", "method": "mean-difference", "max_kl": 0.1, "confirm": None},
    "edit": {"kind": "ablate", "strength": 0.5, "layers": None, "at": []},
    "evaluate": {"refused": "c.txt", "answered": "d.txt", "over_refused": None, "limit": 32, "max_new_tokens": 64},
}


def test_what_a_run_did_not_measure_stays_unmeasured() -> None:
    found = settings_of(RECIPE)
    assert (found.test_refused, found.test_answered, found.limit) == ("c.txt", "d.txt", 32)
    assert (found.test_over_refused, found.test_harmless) == ("", "")
    assert settings_of({**RECIPE, "evaluate": {"limit": None}}).limit == 0
    assert (found.target, found.baseline, found.over_refused) == ("a.txt", "b.txt", public_prompts()["over_refused"])
    assert not [value for value in found.to_dict().values() if str(value).startswith("organism")]


def test_what_the_page_has_no_field_for_is_named() -> None:
    assert left_out(RECIPE) == []
    more = {
        **RECIPE,
        "thinking": "off",
        "find": {**RECIPE["find"], "target": ["a.txt", "e.txt"]},
        "evaluate": {**RECIPE["evaluate"], "max_new_tokens": 48, "lengths": [16, 48]},
    }
    assert left_out(more) == [
        'thinking = "off"',
        'find.target = ["a.txt", "e.txt"]',
        "evaluate.max_new_tokens = 48",
        "evaluate.lengths = [16, 48]",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "float7"),
        ("find.method", "x"),
        ("edit.kind", "nope"),
        ("edit.strength", -3),
        ("edit.strength", float("nan")),
        ("find.max_kl", float("inf")),
        ("evaluate.limit", -1),
        ("evaluate.refused", ["x"]),
    ],
)
def test_a_value_that_a_field_cannot_have_is_not_taken_and_is_named(name: str, value: object) -> None:
    section, _, entry = name.rpartition(".")
    recipe = {**RECIPE, section: {**RECIPE[section], entry: value}} if section else {**RECIPE, entry: value}
    field = {"method": "method", "refused": "test_refused"}.get(entry, entry)
    taken = settings_of(recipe).to_dict()[field]
    assert taken in (getattr(Settings(), field), "", 0)
    assert [each.split(" = ")[0] for each in left_out(recipe)] == [name]


def test_another_name_of_a_method_is_that_method() -> None:
    from weight_edit.utils.registry_listing import registered

    aliases = {one: name for name, found in registered("directions/finders", "finder").items() for one in found.aliases}
    alias, name = next(iter(aliases.items()))
    assert settings_of({**RECIPE, "find": {"method": alias}}).method == name


def test_a_pipe_or_a_longer_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "run.json")
    assert read_recipe(tmp_path / "pipe") is None
    (tmp_path / "run.json").write_text('{"recipe": {}}')
    assert read_recipe(tmp_path) == {}
    monkeypatch.setattr("weight_edit.ui.opened_run._MOST", 5)
    assert read_recipe(tmp_path) is None
