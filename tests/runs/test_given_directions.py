"""A recipe with directions of its own needs no search for them, and reads nothing outside of its folder."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.cli.tables.run import run_result
from weight_edit.directions.directions import Directions
from weight_edit.directions.file import read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_directions import packed_directions
from weight_edit.edits.packed_rows import packed
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UsageError
from weight_edit.recipe.recipe import load_recipe, parse_recipe
from weight_edit.runs.given_directions import given_directions
from weight_edit.runs.recipe_checks import check_recipe
from weight_edit.runs.run import run

WIDTH = 128
ROWS = orthonormal_rows(np.random.default_rng(3).standard_normal((2, WIDTH))).astype(np.float32)
MEAN = np.linspace(-1, 1, WIDTH, dtype=np.float32)
GIVEN = DirectionRows(ROWS, {"method": "mean-difference", "layer": 2, "other": "dropped"}, {"baseline_mean": MEAN})
KERNEL = {"attention": [1.0, 0.5, 0.0, 1.5, 1.0, 1.0], "mlp": [0.25, 1.0, 1.0, 2.0, 0.0, 1.0], "embedding": 0.5}


def content(**changes: Any) -> dict[str, Any]:
    sections = {
        "model": "organism",
        "directions": {"main": packed(ROWS)},
        "edit": {"kernel": KERNEL},
        "verify": {"limit": 2},
    }
    return {**sections, **changes}


def written(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "point.yaml"
    path.write_text(yaml.safe_dump(content(**changes)), encoding="utf-8")
    return path


def test_packed_directions_are_the_same_to_the_bit_with_what_lies_beside_them() -> None:
    entry = json.loads(json.dumps(packed_directions(GIVEN)))
    (found,) = given_directions(parse_recipe(content(directions={"main": entry}))).values()
    assert (found.rows == ROWS).all()
    assert (found.tensors["baseline_mean"] == MEAN).all()
    assert found.metadata == {"method": "mean-difference", "layer": 2}


def test_a_point_is_one_small_file_that_a_run_carries_out(tmp_path: Path) -> None:
    path = written(tmp_path / "points")
    assert path.stat().st_size < 4000
    result = run(load_recipe(path), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out/model")
    assert manifest is not None
    (step,) = manifest["edit"]["steps"]
    assert (step["kernel"], step["directions"]) == (KERNEL, packed(ROWS))
    assert result.summary["verification"]["passed"]
    assert result.summary["direction"] is None
    assert (read_rows(tmp_path / "out/directions.safetensors").rows == ROWS).all()
    assert set(result.summary["given"]) == {"main"}
    # Nothing is answered, and nothing says that it is.
    log = (tmp_path / "out/log.txt").read_text(encoding="utf-8")
    assert "names no prompts to evaluate, so nothing is answered" in log
    assert not {"baseline", "evaluate"} & {*json.loads((tmp_path / "out/run.json").read_text())["steps"]}
    assert not re.search("baseline|evaluate:", log)
    assert not (tmp_path / "out/answers").exists()
    assert "no answers measured" in repr(result)
    printed = Console(file=io.StringIO(), width=100)
    run_result(result, printed)
    said = printed.file.getvalue()  # type: ignore[attr-defined]
    assert "Whether the behaviour changed is not known: the recipe names no prompts to evaluate." in said
    assert "evaluate" in said.split("Next, for example:")[1]
    assert "every answer" not in said
    assert "all candidates and their scores" not in said


def test_directions_of_a_file_are_read_from_the_recipes_folder_and_kept_in_the_runs(tmp_path: Path) -> None:
    points = tmp_path / "points"
    points.mkdir()
    for name, rows in (("one", ROWS[:1]), ("two", ROWS[1:])):
        Directions(torch.from_numpy(rows)).save(points / f"{name}.safetensors")
    given = {"main": "one.safetensors", "second": "two.safetensors"}
    edit = {"kind": "ablate", "then": [{"kind": "reflect", "directions": "second"}]}
    recipe = load_recipe(written(points, directions=given, edit=edit))
    run(recipe, tmp_path / "out")
    # The run's own recipe reads the run's own files, wherever the points are gone to.
    again = load_recipe(tmp_path / "out/recipe.yaml")
    assert again.directions == {"main": "directions.safetensors", "second": "directions-second.safetensors"}
    found = given_directions(again)
    assert (found["main"].rows == ROWS[:1]).all()
    assert (found["second"].rows == ROWS[1:]).all()
    result = run(again, tmp_path / "out", resume=True)
    log = (tmp_path / "out/log.txt").read_text(encoding="utf-8")
    assert "directions second: unchanged, not done again" in log
    assert "the edited model is finished already" in log
    assert result.summary["verification"]["passed"]


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../d.safetensors", "below/../../d.safetensors", "d.pt", "", "weights.bin", "~/x"]
)
def test_a_path_out_of_the_recipes_folder_is_refused_before_anything_is_read(value: str) -> None:
    with pytest.raises(UsageError, match=r"'directions': 'main': .* is no path of a .safetensors file in the recipe's"):
        parse_recipe(content(directions={"main": value}))


def test_a_link_out_of_the_recipes_folder_is_refused(tmp_path: Path) -> None:
    Directions(torch.from_numpy(ROWS)).save(tmp_path / "secret.safetensors")
    path = written(tmp_path / "points", directions={"main": "d.safetensors"})
    (tmp_path / "points/d.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(UsageError, match=r"'directions.main': d.safetensors leads out of the recipe's folder"):
        check_recipe(load_recipe(path))
    (tmp_path / "points/below").symlink_to(tmp_path)
    path = written(tmp_path / "points", directions={"main": "below/secret.safetensors"})
    with pytest.raises(UsageError, match="leads out of the recipe's folder"):
        check_recipe(load_recipe(path))


def test_a_file_of_directions_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no directions file"):
        check_recipe(load_recipe(written(tmp_path, directions={"main": "d.safetensors"})))
    with pytest.raises(UsageError, match=r"'directions.main' is a file beside the recipe, which is in no folder"):
        check_recipe(parse_recipe(content(directions={"main": "d.safetensors"})))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [2, 63]}, "float32 does not hold 2 x 63 numbers"),
        ({"shape": "wide"}, "shape is no list"),
        ({"shape": [2, True]}, "shape is no list"),
        ({"shape": [2 * WIDTH]}, r"of shape \(256,\), which is not"),
        ({"float32": "?"}, "float32 does not hold"),
        ({"float32": 3}, "float32 does not hold"),
        ({"sha256": "0" * 64}, "not those of its sha256"),
        ({"rows": []}, "no key of directions 'rows'"),
        ({"tensors": [1]}, "tensors are no names"),
        ({"tensors": {"mean": {"shape": [1]}}}, "the tensor 'mean': float32 is missing"),
        ({"tensors": {"mean": packed(MEAN[:3])}}, "'mean' is not as wide as the directions, 128"),
        ({"layer": "third"}, "`layer` must be the number of a layer"),
        (packed(2 * ROWS), "not orthonormal"),
        (packed(np.full((1, WIDTH), np.nan)), "not finite"),
    ],
)
def test_malformed_directions_fail_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"'directions': 'main': .*{said}") as caught:
        parse_recipe(content(directions={"main": {**packed(ROWS), **change}}))
    assert len(str(caught.value)) < 500, "numbers in base64 are no message"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"directions": {"random": packed(ROWS)}}, "'random' is taken"),
        ({"directions": {"a": packed(ROWS)}}, "'find' is missing"),
        ({"edit": {"directions": "a"}}, "directions 'a', which are not among 'finds' nor 'directions'"),
        ({"find": {"target": "t", "baseline": "b"}}, "'main' are both found by 'find' and given"),
        ({"directions": {"main": packed(ROWS), "Main": packed(ROWS)}}, "kept in the same file"),
        ({"directions": {"main": [1, 2]}}, "write the path of a .safetensors file, or shape"),
    ],
)
def test_names_of_directions_mean_one_thing(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_recipe(content(**changes))


def test_directions_of_another_width_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the directions are 8 wide, but the model's residual stream is 128 wide"):
        run(parse_recipe(content(directions={"main": packed(np.eye(1, 8))}, edit={})), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_factors_for_another_number_of_layers_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`kernel` has numbers for 2 layers, but .* has 6"):
        run(parse_recipe(content(edit={"kernel": {"mlp": [1.0, 1.0]}})), tmp_path / "out")
    assert not (tmp_path / "out").exists()
