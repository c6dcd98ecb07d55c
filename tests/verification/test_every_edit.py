"""`verify` through the command line on every kind of edit of the embedded model, and on broken ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.verification_samples import resign
from weight_edit.baking.bake import bake
from weight_edit.directions.file import read_rows
from weight_edit.directions.find_by_name import find_by_name
from weight_edit.directions.find_request import FindRequest
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.organism.embedded import folder
from weight_edit.plan.step import EditStep
from weight_edit.runtime.options import FormatOptions, LoadOptions

FEW = ("--limit", 2)


@pytest.fixture(scope="module")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `find` finds, with an oblique eraser beside it."""
    path = tmp_path_factory.mktemp("found") / "d.safetensors"
    request = FindRequest.read(
        target="organism:refused:train",
        baseline="organism:answered:train",
        n_train=24,
        n_validation=8,
        positions="last",
        best_effort=True,
    )
    find_by_name(request, "organism", path, load_options=LoadOptions(), format_options=FormatOptions())
    return path


def steps(directions: Path) -> dict[str, list[EditStep]]:
    found = read_rows(directions)
    row = found.rows
    tilted = row + 0.3 * np.roll(row, 1, axis=1)
    eraser = {"left": tilted / (tilted @ row.T), "right": row, "mean": found.tensors["baseline_mean"]}
    other = np.roll(row, 5, axis=1)
    return {
        "ablate": [EditStep(directions=found)],
        "add": [EditStep(directions=found, kind="add", at=(3,))],
        "add-at-0": [EditStep(directions=found, kind="add", strength=-0.5, at=(0,))],
        "reflect": [EditStep(directions=found, kind="reflect")],
        "reflect-at": [EditStep(directions=found, kind="reflect", at=(3,))],
        "affine": [EditStep(directions=found, kind="affine")],
        "affine-at-0": [EditStep(directions=found, kind="affine", options={"enter": "embedding"})],
        "erase": [EditStep(directions=DirectionRows(row, found.metadata, eraser), kind="erase")],
        "norm-preserving": [EditStep(directions=found, kind="norm-preserving")],
        "composed": [
            EditStep(directions=found, kind="affine"),
            EditStep(directions=DirectionRows(other, {}), kind="ablate", strength=0.5),
            EditStep(directions=found, kind="add", strength=0.5, at=(3,)),
            EditStep(directions=DirectionRows(other, {}), kind="reflect", at=(4,)),
        ],
    }


COMPLETE = ("ablate", "affine", "affine-at-0", "erase", "norm-preserving")


@pytest.fixture(scope="module")
def baked(directions: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`baked(name)`: the folder of one of the edits above."""
    folder = tmp_path_factory.mktemp("edits")

    def get(name: str) -> Path:
        if not (folder / name).exists():
            bake("organism", steps(directions)[name], folder / name)
        return folder / name

    return get


@pytest.mark.parametrize("name", [*COMPLETE, "add", "add-at-0", "reflect", "reflect-at", "composed"])
def test_an_honest_edit_passes(call, baked: Callable[[str], Path], name: str) -> None:
    checked = call("verify", "organism", baked(name), *FEW, "--json")
    assert checked.code == 0, checked.err
    assert checked.json["complete"] == (name in COMPLETE)
    assert checked.json["logit_difference"] < 1e-4
    published = checked.json["by_dtype"]["float32"]["published_hook_against_weights"]
    # What acts at every block's input again, or keeps lengths, differs from the papers' hooks, by so much.
    if name in ("ablate", "affine", "affine-at-0", "erase"):
        assert published["largest"] < 1e-3
    elif name in ("reflect", "norm-preserving"):
        assert published["largest"] > 0.1
    else:
        assert published is None


def test_how_far_the_papers_hooks_are_is_shown(call, baked: Callable[[str], Path]) -> None:
    shown = " ".join(call("verify", "organism", baked("reflect"), *FEW).out.split())
    assert "as papers hook it, float32" in shown
    assert "as papers hook it" not in call("verify", "organism", baked("add"), *FEW).out


BIAS = "model.layers.2.mlp.down_proj.bias"
READER = "model.layers.4.self_attn.q_proj.weight"
GAIN = "model.layers.3.input_layernorm.weight"
EMBEDDING = "model.embed_tokens.weight"
BROKEN: dict[str, tuple[str, str, Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]]] = {
    "an added bias is off": ("add", BIAS, lambda t, base: t * 1.01),
    "an added bias is missing": ("add", BIAS, lambda t, base: t * 0),
    "a bias that should be zero is not": ("add", "model.layers.0.mlp.up_proj.bias", lambda t, base: t + 1e-3),
    "a gain is not one": ("reflect-at", GAIN, lambda t, base: base),
    "a reader is unedited": ("reflect-at", READER, lambda t, base: base),
    "the unembedding is unedited": ("reflect-at", "lm_head.weight", lambda t, base: base),
    "the constant is missing": ("affine-at-0", EMBEDDING, lambda t, base: t - t.mean(dim=0)),
    "a column is too long": ("norm-preserving", "model.layers.1.mlp.down_proj.weight", lambda t, base: t * 1.01),
    "the eraser left a writer out": ("erase", "model.layers.1.mlp.down_proj.weight", lambda t, base: base),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_edit_is_caught(call, baked: Callable[[str], Path], what: str, tmp_path: Path) -> None:
    name, tensor, change = BROKEN[what]
    shutil.copytree(baked(name), tmp_path / "out")
    base = load_file(folder() / "model.safetensors").get(tensor)
    shards = {shard: load_file(shard) for shard in sorted((tmp_path / "out").glob("*.safetensors"))}
    ((shard, held),) = ((shard, held) for shard, held in shards.items() if tensor in held)
    save_file({**held, tensor: change(held[tensor], base).contiguous()}, shard, metadata={"format": "pt"})
    resign(tmp_path / "out")
    for how in (FEW, ("--weights-only",)):
        checked = call("verify", "organism", tmp_path / "out", *how, "--json")
        assert checked.code == 4, checked.out
        assert any(tensor in problem for problem in checked.json["problems"])


def test_a_manifest_that_claims_another_edit_is_caught(call, baked: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(baked("affine-at-0"), tmp_path / "out")
    path = tmp_path / "out/weight_edit.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["edit"]["steps"][0] |= {"edit": "ablate", "options": {}}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    checked = call("verify", "organism", tmp_path / "out", *FEW, "--json")
    assert checked.code == 4
    assert any(EMBEDDING in problem for problem in checked.json["problems"])
