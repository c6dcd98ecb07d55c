"""JSON and YAML are read strictly, and in bounded time and memory; files only if they are regular."""

import json
import os
from itertools import pairwise

import pytest

from tests.helpers.mutations import time_limit
from weight_edit.checkpoint.files import check_regular, read_json, read_whole
from weight_edit.cli.values import key_values, mapping
from weight_edit.errors import UsageError
from weight_edit.hub.base_card import front_matter
from weight_edit.recipe.recipe import load_recipe
from weight_edit.utils.bounded_yaml import YamlError, parse_yaml
from weight_edit.utils.json import JsonError, parse_json


def bomb(kind: str) -> str:
    """Nine lines, each of which stands for nine times the one before it."""
    names = "abcdefghij"
    if kind == "list":
        lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
        lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise(names)]
    else:
        lines = ["a: &a {x: 1, y: 2}"]
        lines += [f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}" for old, new in pairwise(names)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", ["list", "merge"])
def test_aliases_are_counted_as_what_they_stand_for(tmp_path, kind):
    path = tmp_path / "recipe.yaml"
    path.write_text("model: organism\n" + bomb(kind))
    flat = "{" + ", ".join(bomb(kind).splitlines()) + "}"
    with time_limit(10):
        for read in (
            lambda: load_recipe(path),
            lambda: load_recipe("recipes/organism.yaml", overlays=[path]),
            lambda: load_recipe("recipes/organism.yaml", [f"find.options={flat}"]),
            lambda: key_values([f"x={flat}"], "--option"),
            lambda: mapping(flat, "--kernel"),
        ):
            with pytest.raises(UsageError, match="more than 20000 entries") as caught:
                read()
            assert len(str(caught.value).splitlines()) == 1
        assert front_matter(f"---\n{bomb(kind)}---\n") == {}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: &a [*a]", "within what it stands for"),
        ("[" * 5000, "nested too deeply"),
        ("a: " + "9" * 5000, "5000 digits"),
        ("a: 0x" + "f" * 50_000, "50002 digits"),
        ("a: " + "x" * 300_000, "too many"),
        ("[" + "1," * 30_000 + "]", "more than 20000"),
        ('a: "\\ud800"', "Unicode"),
        ('a: "x\\0"', "control character"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("? [1]\n: 2", "unhashable"),
        ("a: *b", "undefined alias"),
    ],
)
def test_yaml_that_is_refused(text, named):
    with time_limit(10), pytest.raises(YamlError, match=named) as caught:
        parse_yaml(text)
    assert str(caught.value).isprintable()


def test_yaml_that_recipes_use_is_read():
    text = "a: &x {b: 1.5, c: yes, t: 2020-01-01}\nd: {<<: *x, b: null}\ne: [1, 0x10, 'x', \"line\\nbreak\"]\n"
    assert parse_yaml(text) == {
        "a": {"b": 1.5, "c": True, "t": "2020-01-01"},
        "d": {"b": None, "c": True, "t": "2020-01-01"},
        "e": [1, 16, "x", "line\nbreak"],
    }


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("NaN", "NaN"),
        ("[-Infinity]", "Infinity"),
        ("1e999", "too large"),
        ("9" * 5000, "5000 digits"),
        ("-" + "9" * 400, "401 digits"),
        ('{"a": "\\ud800"}', "Unicode"),
        ('{"\\udfff": 1}', "Unicode"),
        ("[" * 200 + "]" * 200, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "twice"),
    ],
)
def test_json_that_is_refused(text, named):
    with pytest.raises(JsonError, match=named):
        parse_json(text)
    with pytest.raises(UsageError, match=f"some.json: .*{named}") as caught:
        read_json(text.encode(), "some.json")
    assert len(str(caught.value)) < 400


def test_json_that_is_read():
    text = '{"a": [1, -2, 1e300, "\\ud83d\\ude00", {"b": null}], "c": ' + "9" * 300 + "}"
    assert parse_json(text) == json.loads(text)
    assert parse_json('{"time_step_limit": [0.0, Infinity]}', constants=True) == {
        "time_step_limit": [0.0, float("inf")]
    }


def test_only_regular_files_of_bounded_length_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert read_whole(tmp_path / "link") == b"content"
    with time_limit(5):
        for name, said in {
            "pipe": "not a regular file",
            "zero": "not a regular file",
            ".": "not a regular file",
            "loop": "cannot be read",
            "none": "no such file",
            "a\0b": "NUL|null",
        }.items():
            with pytest.raises(UsageError, match=said) as caught:
                read_whole(tmp_path / name)
            assert str(caught.value).isprintable()
    with pytest.raises(UsageError, match="at most 3"):
        read_whole(tmp_path / "file", 3)


def test_a_model_folder_holds_nothing_that_one_would_wait_for(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "broken").symlink_to("nothing")
    check_regular(tmp_path)
    (tmp_path / "deep").mkdir()
    os.mkfifo(tmp_path / "deep" / "tokenizer.json")
    with pytest.raises(UsageError, match=r"tokenizer.json is not a regular file"):
        check_regular(tmp_path)
    (tmp_path / "deep" / "tokenizer.json").unlink()
    with (tmp_path / "vocab.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="too many"):
        check_regular(tmp_path)
