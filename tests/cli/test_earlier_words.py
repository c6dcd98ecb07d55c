"""Options and values of the command line by their earlier names."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.numpy import save_file

from tests.helpers.families import save_family
from weight_edit.cli.earlier_words import in_present_words
from weight_edit.cli.tables.results import directions
from weight_edit.directions.directions import Directions
from weight_edit.recipe.recipe import parse_recipe

BAKE = {"--kind", "--embeddings", "--mtp", "--projector", "--out"}


@pytest.fixture
def bake_call(tmp_path: Path) -> tuple[list[str], Path]:
    """A call of `bake`, and its output."""
    save_family("llama", tmp_path / "base")
    save_file({"direction": np.eye(1, 64, dtype=np.float32)}, tmp_path / "d.safetensors")
    made = ["bake", tmp_path / "base", "--directions", tmp_path / "d.safetensors", "--out", tmp_path / "out"]
    return list(map(str, made)), tmp_path / "out"


@pytest.mark.parametrize(
    ("given", "present"),
    [
        ("--edit add", "--kind add"),
        ("--edit=add", "--kind=add"),
        ("--embeddings keep", "--embeddings both"),
        ("--embeddings=keep", "--embeddings=both"),
        ("--mtp keep", "--mtp skip"),
        ("--projector keep --mtp edit", "--projector skip --mtp edit"),
        ("--projector=followed", "--projector=partial"),
    ],
)
def test_earlier_words_become_the_present_ones_with_a_note(given: str, present: str) -> None:
    args, notes = in_present_words(given.split(), BAKE)
    assert args == present.split()
    (note,) = notes
    assert note.endswith(" now")


@pytest.mark.parametrize(("flag", "now"), [("--filter-prompts", "first-token"), ("--no-filter-prompts", "none")])
def test_flags_that_take_a_value_now(flag: str, now: str) -> None:
    args, notes = in_present_words([flag, "--seed", "1"], {"--filter", "--seed"})
    assert args == [f"--filter={now}", "--seed", "1"]
    assert notes == [f"{flag} is called --filter {now} now"]
    assert in_present_words([flag], {"--seed"}) == ([flag], [])


@pytest.mark.parametrize(
    "given", ["--kind add", "keep --embeddings both", "--out keep", "--mtp edit", "-- --edit add", "--limit keep", ""]
)
def test_other_arguments_stay(given: str) -> None:
    assert in_present_words(given.split(), BAKE) == (given.split(), [])


def test_a_verb_without_the_present_option_does_not_take_the_earlier_one() -> None:
    assert in_present_words(["--edit", "add"], {"--out"}) == (["--edit", "add"], [])


def test_a_bake_says_what_its_words_are_called_now(call, bake_call) -> None:
    bake, out = bake_call
    result = call(*bake, "--edit", "reflect", "--embeddings", "keep")
    assert result.code == 0, result.err
    assert "note: --edit is called --kind now\nnote: --embeddings keep is called --embeddings both now\n" in result.err
    edit = json.loads((out / "weight_edit.json").read_text())["edit"]
    assert (edit["steps"][0]["edit"], edit["embeddings"]) == ("reflect", "both")


def test_quiet_is_quiet(call, bake_call) -> None:
    bake, _ = bake_call
    assert "is called" not in call(*bake, "--edit", "reflect", "--quiet").err


@pytest.mark.parametrize("word", ["select", "by"])
def test_directions_of_earlier_versions_are_shown_by_their_rule(word: str) -> None:
    rows = np.eye(1, 8, dtype=np.float32)
    found = Directions(torch.from_numpy(rows), metadata={"rule": {word: "accuracy"}, "method": "inlp"})
    console = Console(record=True, file=io.StringIO())
    directions(found, Path("d.safetensors"), console)
    assert "Candidates by accuracy score (inlp)" in console.export_text()


def test_a_recipe_by_its_earlier_words(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("weight_edit.recipe.earlier_words.announce", said.append)
    content = {
        "model": "organism",
        "find": {"target": "a", "baseline": "b"},
        "edit": {"embeddings": "keep", "projector": "keep", "mtp": "keep"},
        "verify": {"n_prompts": 3},
    }
    recipe = parse_recipe(content)
    assert recipe.edit is not None
    assert (recipe.edit.embeddings, recipe.edit.projector, recipe.edit.mtp) == ("both", "skip", "skip")
    assert recipe.verify.limit == 3
    assert "note: the recipe's edit.mtp: keep is called skip now" in said
    assert "note: the recipe's verify.n_prompts is called verify.limit now" in said
    assert len(said) == 4
