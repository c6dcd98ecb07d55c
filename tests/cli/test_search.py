"""The verb `search` prints a front that fits a terminal, says what it is worth, and takes up where it stopped."""

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from weight_edit.cli.tables.search import search_front
from weight_edit.evaluation.intervals import Rate
from weight_edit.recipe.recipe import load_recipe
from weight_edit.search.summary import PointSummary, SearchSummary

ASKED = ("--target", "organism:refused:train", "--baseline", "organism:answered:train")
SMALL = (
    *("--trials", "2", "--generation", "2", "--descents", "0", "--judged", "8", "--finalists", "2"),
    *("--n-train", "8", "--n-validation", "8", "--lengths", "16,24"),
)


def point(number: int, **changes: Any) -> PointSummary:
    said = {
        "digest": f"{number:012x}",
        "origin": "published: kernel, gemma-3-4b",
        "directions": 1,
        "damage": 0.00123 * number,
        "cheap": 0.5,
        "refusal": {"64": Rate(40, 64).to_dict(), "128": Rate(number, 64).to_dict()},
        "over_refusal": Rate(8, 64).to_dict(),
        "exact": {"refused": Rate(1, 64).to_dict(), "ordinary": Rate(60, 64).to_dict()},
        "recipe": f"points/{number:02d}-{number:012x}.yaml",
    }
    return {**said, **changes}  # type: ignore[typeddict-item]


def summary(**changes: Any) -> SearchSummary:
    said = {
        "front": [point(1), point(2)],
        "plain": point(9, recipe=None, origin="plain"),
        "picked": point(2)["digest"],
        "reason": "the least damage of the points with a refusal of at most 0.05",
        "tau": {"sentence": "the cheap score ranks well: tau 0.91 [0.85, 0.95] on 32 candidates"},
        "sketch_tau": {"value": 0.8, "low": 0.7, "high": 0.9},
        "judged": 32,
        "candidates": 131,
        "warnings": ["[bold]two prompts[/] are in both sets"],
        "costs": {"rungs": [{"asked": 8, "candidates": 104, "on": 60}, {"asked": 64, "candidates": 60, "on": 41}]},
        "seconds": {"preparation": 12.0, "sampler 1": 20.0, "sampler 2": 20.0, "judging": 0.01},
    }
    return {**said, **changes}  # type: ignore[typeddict-item]


def shown(found: SearchSummary, width: int) -> str:
    console = Console(width=width, emoji=False, record=True, file=StringIO())
    search_front(found, console)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 160])
def test_the_front_is_a_table_whose_figures_are_whole(width: int) -> None:
    text = shown(summary(), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    assert re.search(r"^\s+1\s+0.02 \[0.00, 0.08\]\s+0.62\s+0.0012\s+0.12\s+0.94\s+published", text, re.M)
    assert re.search(r"^\s*> 2\s+0.03 \[0.01, 0.11\]\s+0.62\s+0.0025", text, re.M)
    assert re.search(r"^\s+plain\s+0.14 ", text, re.M)
    assert all(f"points/{n:02d}-{n:012x}.yaml" in text for n in (1, 2))


def test_what_the_score_is_worth_and_what_it_took_are_said() -> None:
    text = " ".join(shown(summary(), 200).split())
    assert "Picked (>): the least damage of the points with a refusal of at most 0.05." in text
    assert "Of 131 candidates 32 were judged: the cheap score ranks well: tau 0.91 [0.85, 0.95]" in text
    assert "Sketches, which decide what is scored: tau 0.80 [0.70, 0.90]." in text
    assert "Rungs of the race: 104 on 8 prompts of each kind, 60 on 64; 41 to the end." in text
    assert "Time: preparation 12 s, sampler 40 s." in text
    assert "note: [bold]two prompts[/] are in both sets" in text, "a name is no markup"


def test_a_plain_ablation_on_the_front_stands_there_once_and_absent_figures_have_no_column() -> None:
    alone = point(1, over_refusal=None, exact={"refused": None, "ordinary": None})
    text = shown(summary(front=[alone], plain=alone, picked=alone["digest"]), 80)
    assert "over-" not in text
    assert "exact" not in text
    assert "plain" not in text


def test_a_search_leaves_a_front_of_recipes_and_another_rule_costs_nothing(call: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ("search", "organism", *ASKED, *SMALL, "--out", out)
    first = call(*asked)
    assert first.code == 0, first.err
    candidates = json.loads((out / "search.json").read_text(encoding="utf-8"))["candidates"]
    command = re.search(r"weight-edit run (\S+\.yaml) --out edited", first.out)
    assert command is not None, first.out
    recipe = load_recipe(command[1])
    assert recipe.model == "organism"
    assert recipe.verify.prompts == "organism:answered:train"
    refused = call(*asked)
    assert (refused.code, "--resume goes on with it" in refused.err) == (2, True), refused.err
    # What is not said again is as it was, so that no trial of the default number is begun.
    kept = ("search", "organism", *ASKED, *SMALL[2:4], *SMALL[10:], "--out", out)
    assert "--judged" in asked
    assert "--judged" not in kept
    again = call(*kept, "--resume", "--pick", "1", "--json")
    assert again.code == 0, again.err
    found = json.loads(again.out)
    assert found["candidates"] == candidates
    assert found["picked"]["point"]["digest"] == found["front"][0]["digest"]
    assert Path(found["front"][0]["recipe"]).is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pick", "best"), "--pick best: write refusal<=0.1"),
        (("--sampler", "annealing"), "no sampler.*tpe, cma-es, random|annealing.*tpe, cma-es, random"),
        (("--descent", "stpes=3"), "'stpes' is not a key; did you mean 'steps'"),
        (("--descent", "steps"), "write key=value, for example --descent steps=30"),
        (("--finder", "nobody"), "no method 'nobody'"),
        (("--judged", "2"), "--judged 2: must be at least 8"),
        (("--lengths", "x"), "--lengths x: write whole numbers"),
        (("--embeddings", "skip"), "--embeddings skip: must be both or untie"),
        (("--over-refused", "organism:nobody"), "nobody"),
    ],
)
def test_a_wrong_option_is_one_line_before_a_model_is_loaded(
    call: Any, tmp_path: Path, options: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weight_edit.runtime.loading.load", lambda *given, **named: pytest.fail("it loads"))
    found = call("search", "organism", *ASKED, "--out", tmp_path / "out", *options)
    assert found.code == 2
    assert len(found.err.strip().splitlines()) == 1
    assert re.search(said, found.err), found.err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(call: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for flags in ((), ("--overwrite",), ("--resume",)):
        found = call("search", "organism", *ASKED, "--out", tmp_path, *flags)
        assert (found.code, "holds no search" in found.err) == (2, True), found.err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
