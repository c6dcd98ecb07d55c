"""Commands of the steps: what is shown is what runs, and a value stays a value."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main

from weight_edit.cli.app import app
from weight_edit.recipe.recipe import load_recipe
from weight_edit.ui import commands
from weight_edit.ui.settings import Settings, public_prompts

VERBS = typer.main.get_command(app).commands


def every(settings: Settings, folder: Path) -> list[commands.Command]:
    directions = folder / "find-1.safetensors"
    return [
        commands.inspect_command(settings),
        commands.plan_command(settings),
        commands.find_command(settings, directions, resumed=True),
        commands.search_command(settings, folder / "search-2", resumed=True),
        commands.bake_command(settings, directions, folder / "model-3"),
        commands.run_command(settings, directions, folder, folder / "run-4"),
        commands.point_command(settings, folder / "search-2/points/01-ab.yaml", folder, folder / "run-5"),
        commands.verify_command(settings, folder / "model-3"),
        commands.push_command(settings, folder / "model-3", dry=True),
    ]


HOSTILE = Settings(
    **{
        name: f"--{name} $(touch x); 'a\" &"
        for name in (
            "model",
            "dtype",
            "device",
            "target",
            "baseline",
            "over_refused",
            "test_answered",
            "method",
            "kind",
        )
    },
    repo="--token",
    layers="-1",
    pick="-x",
    strength=-0.5,
    max_kl=0.2,
    confirm=4,
)


@pytest.mark.parametrize("settings", [Settings(), replace(Settings(), best_effort=True, private=False), HOSTILE])
def test_every_word_is_an_option_of_the_verb_or_a_value(settings: Settings, tmp_path: Path) -> None:
    for each in every(replace(settings, repo=settings.repo or "me/model"), tmp_path):
        verb = VERBS[each.verb]
        words = commands.job_words(each.words)[1:]
        parsed, left, _ = verb.make_parser(typer.Context(verb)).parse_args(list(words))
        assert not left, each
        assert parsed["as_json"]
        if "model" in parsed and each.verb != "run":
            assert parsed["model"] == settings.model
        assert parsed.get("token") is None
        assert parsed["log_format"] == "json"
        assert shlex.split(str(each)) == ["weight-edit", *each.words]
        assert commands.shell_line(commands.job_words(each.words)) == str(each)


def test_the_chats_line_is_of_what_is_tried() -> None:
    assert str(commands.chat_command(Settings(layers="1-3"), Path("d"), Path("m"))) == (
        "weight-edit chat organism --directions d --layers 1-3"
    )
    baked = commands.chat_command(Settings(way="search", tried="baked"), Path("d"), Path("m"))
    assert str(baked) == "weight-edit chat m --against organism"


def test_paths_are_shown_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = commands.find_command(Settings(), tmp_path / "p/find-1.safetensors")
    assert str(found) == (
        "weight-edit find organism --target organism:refused:train --baseline organism:answered:train "
        "--out p/find-1.safetensors"
    )
    assert commands.shown_path(tmp_path.parent / "x") == str(tmp_path.parent / "x")
    assert commands.shown_path(tmp_path / "-x") == "./-x"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (commands.bake_command(Settings(), None, Path("o")), "step 4"),
        (commands.run_command(Settings(), None, Path(), Path("o")), "step 4"),
        (commands.point_command(Settings(), None, Path(), Path("o")), "steps 4 and 5"),
        (commands.verify_command(Settings(), None), "step 7"),
        (commands.chat_command(Settings(), None, None), "step 4"),
        (commands.chat_command(Settings(way="search"), None, None), "steps 4 and 5"),
        (commands.chat_command(Settings(tried="baked"), Path("d"), None), "step 7"),
        (commands.push_command(Settings(), None, dry=True), "step 7"),
        (commands.push_command(Settings(), Path("m"), dry=True), "owner/name"),
        (commands.report_command(None, Path("o")), "step 7"),
    ],
)
def test_what_is_missing_is_said(command: commands.Command, said: str) -> None:
    assert said in command.missing


def test_the_recipe_that_is_written_is_one(tmp_path: Path) -> None:
    settings = replace(Settings(), strength=0.5, layers="1-3", limit=7, device="cpu")
    made = commands.run_command(settings, tmp_path / "find-1.safetensors", tmp_path, tmp_path / "run")
    (path, content), *_ = made.files
    path.write_text(content)
    recipe = load_recipe(path)
    assert recipe.edit is not None
    assert (recipe.edit.strength, recipe.edit.layers, recipe.evaluate.limit, recipe.device) == (0.5, "1-3", 7, "cpu")
    assert recipe.directions == {"main": "find-1.safetensors"}
    assert recipe.evaluate.refused == "organism:refused:test"


def test_another_model_takes_public_prompts_and_gives_them_back() -> None:
    other = Settings().on_model("Qwen/Qwen2.5-0.5B-Instruct")
    assert other.target == public_prompts()["target"]
    assert other.best_effort
    assert not other.target.startswith("organism:")
    assert other.on_model("organism") == Settings()
    own = replace(Settings(), target="mine.txt").on_model("Qwen/Qwen2.5-0.5B-Instruct")
    assert (own.target, own.baseline) == ("mine.txt", public_prompts()["baseline"])


def test_values_of_the_wrong_type_change_nothing() -> None:
    wrong = {"model": 3, "limit": "x", "private": "yes", "strength": True, "nobody": 1, "target": None}
    assert Settings().changed(wrong) == Settings()
    assert Settings().changed({"model": " x ", "limit": 3}) == replace(Settings(), model="x", limit=3.0)


def test_an_earlier_runs_recipe_stays_as_it_was(tmp_path: Path) -> None:
    """The line that was shown of it is still what ran."""
    point = tmp_path / "search-1/points/01-ab.yaml"
    made = [
        make(Settings(), source, tmp_path, tmp_path / out)
        for make, source in ((commands.run_command, tmp_path / "find-1.safetensors"), (commands.point_command, point))
        for out in ("run-4", "run-5")
    ]
    paths = {path for each in made for path, _ in each.files}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path}
    assert all(str(path) in each.words for each in made for path, _ in each.files)
