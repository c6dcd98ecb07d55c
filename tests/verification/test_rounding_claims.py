"""What a manifest says of rounding is held against the files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.quantized_models import llama_compressed
from weight_edit.baking.bake import bake
from weight_edit.baking.card.card import model_card
from weight_edit.checkpoint.manifest import MANIFEST, read_manifest
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.verification.verify import verify

ROWS = orthonormal_rows(np.random.default_rng(2).standard_normal((1, 64))).astype(np.float32)
DOWN = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("rounding")
    sample = llama_compressed(folder / "base", "channel")
    result = bake(sample.folder, DirectionRows(ROWS), folder / "edited")
    assert result.rounding is not None
    assert set(result.rounding) == set(sample.writers)
    assert {loss["format"] for loss in result.rounding.values()} == {"FP8"}
    assert all(loss["left"] < 0.02 < loss["kept"] < 1.1 for loss in result.rounding.values())
    return sample.folder, folder / "edited"


def test_what_was_recorded_is_found_and_stands_on_the_card(baked: tuple[Path, Path]) -> None:
    base, edited = baked
    assert verify(base, edited, weights_only=True).problems == ()
    manifest = read_manifest(edited)
    assert manifest is not None
    card = model_card(manifest)
    assert "| FP8 | 4 |" in card
    assert "leaves more than" not in card
    manifest["rounding"][DOWN]["left"] = 0.04
    assert "In 1 tensors rounding leaves more than 1%" in model_card(manifest)


def a_better_figure(record: dict[str, Any]) -> None:
    record[DOWN]["left"] = 0.0


def another_format(record: dict[str, Any]) -> None:
    record[DOWN]["format"] = "Q8_0"


def one_less(record: dict[str, Any]) -> None:
    del record[DOWN]


def one_more(record: dict[str, Any]) -> None:
    record["model.norm.weight"] = dict(record[DOWN])


def no_figures(record: dict[str, Any]) -> None:
    record[DOWN] = "fine"


@pytest.mark.parametrize("change", [a_better_figure, another_format, one_less, one_more, no_figures])
def test_another_record_is_a_problem(
    baked: tuple[Path, Path], tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    base, edited = baked
    copy = tmp_path / "copy"
    shutil.copytree(edited, copy)
    manifest = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    change(manifest["rounding"])
    (copy / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    problems = verify(base, copy, weights_only=True).problems
    assert any(problem.startswith("manifest: its rounding of ") for problem in problems)


@pytest.mark.parametrize("rounding", ["balanced", "nearest"])
def test_an_output_of_an_earlier_version_is_said_to_be_one(
    baked: tuple[Path, Path], tmp_path: Path, rounding: str
) -> None:
    base, edited = baked
    copy = tmp_path / "copy"
    if rounding == "balanced":
        shutil.copytree(edited, copy)
    else:
        bake(base, DirectionRows(ROWS), copy, rounding=rounding)
    manifest = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    del manifest["rounding"]
    (copy / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    problems = [each for each in verify(base, copy, weights_only=True).problems if each.startswith("manifest: ")]
    assert [each[:62] for each in problems] == ["manifest: it records no rounding, as those of earlier versions"]
