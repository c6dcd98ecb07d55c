"""Edits of GGUF files in float32: nothing is left in the stream, and weights agree with hooks."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")

from tests.helpers.gguf_models import FAMILIES, gguf_tensors, small_model, write_model
from weight_edit.baking.bake import bake
from weight_edit.baking.prepare import EditOptions, prepare
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.hub.source import resolve
from weight_edit.plan.step import EditStep
from weight_edit.proofs.architecture import hook_difference, largest, stream_at_points
from weight_edit.runtime.loading import Model, load
from weight_edit.verification.verify import verify

TOKENS = [{"input_ids": torch.arange(3, 27).reshape(2, 12)}]

loaded = partial(load, tokenizer=object(), dtype="float32")
"""These files have no tokenizer."""


def directions(width: int = 64, count: int = 2) -> DirectionRows:
    rows = np.random.default_rng(5).standard_normal((count, width))
    return DirectionRows(orthonormal_rows(rows).astype(np.float32))


def leak(model: Model, rows: DirectionRows) -> float:
    given = torch.from_numpy(rows.rows)
    return largest(stream_at_points(model.model, model.anatomy, given, TOKENS[0]))


@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_nothing_is_left_and_hooks_agree(kind: str, tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model(kind), kind)
    rows = directions()
    edited = bake(file, rows, tmp_path / "edited")
    after, before = loaded(edited.path), loaded(file)
    assert (edited.path / "model.gguf").stat().st_size == file.stat().st_size
    assert leak(before, rows) > 0.1
    assert leak(after, rows) < 1e-5
    plan = prepare(resolve(file), [EditStep(directions=rows)], EditOptions()).plan
    assert hook_difference(before.model, after.model, plan, TOKENS) < 1e-4


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "nemotron", "gpt2"])
def test_a_direction_of_the_folder_goes_into_its_file(kind: str, tmp_path: Path) -> None:
    model: Any = small_model(kind)
    model.save_pretrained(tmp_path / "folder")
    file = write_model(tmp_path / "model.gguf", model, kind)
    rows = directions()
    one = loaded(bake(tmp_path / "folder", rows, tmp_path / "one").path)
    other = loaded(bake(file, rows, tmp_path / "other").path)
    state = one.model.state_dict()
    for name, parameter in other.model.state_dict().items():
        assert torch.allclose(parameter, state[name], atol=1e-6), name


def test_what_needs_other_tensors_is_refused(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model("qwen3", tie_word_embeddings=True), "qwen3")
    edit = partial(bake, file, directions(), tmp_path / "edited")
    with pytest.raises(UnsupportedError, match=r"embeddings='untie'.*'output\.weight'.*safetensors folder"):
        edit(embeddings="untie")
    with pytest.raises(UnsupportedError, match=r"`dequantize=True`.*keep their types.*safetensors folder"):
        edit(dequantize=True)
    with pytest.raises(UnsupportedError, match=r"`mtp='edit'`.*GGUF"):
        edit(mtp="edit")
    mean = {"baseline_mean": np.ones(64, np.float32)}
    rows = DirectionRows(directions(count=1).rows, metadata={"layer": 1}, tensors=mean)
    with pytest.raises(UnsupportedError, match=r"needs a bias that the model has not.*no room.*ablate"):
        bake(file, rows, tmp_path / "edited", kind="affine")
    assert not (tmp_path / "edited").exists()


def test_directions_of_another_width_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_model(tmp_path / "model.gguf", small_model("qwen3"), "qwen3")

    def derived(*_: object, **__: object) -> None:
        raise AssertionError("an anatomy was derived")

    monkeypatch.setattr("weight_edit.baking.prepare.proven_anatomy", derived)
    with pytest.raises(UsageError, match="64"):
        bake(file, directions(width=48), tmp_path / "edited")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "stablelm"])
def test_readers_are_edited_along_their_inputs(kind: str, tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model(kind, tie_word_embeddings=False), kind)
    rows = directions(count=1)
    rows = DirectionRows(orthonormal_rows(rows.rows - rows.rows.mean()).astype(np.float32))
    edited = bake(file, rows, tmp_path / "edited", kind="reflect", at=1)
    plan = prepare(resolve(file), edited_steps(edited.path), EditOptions()).plan
    assert hook_difference(loaded(file).model, loaded(edited.path).model, plan, TOKENS) < 1e-4


def edited_steps(folder: Path) -> list[EditStep]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return [EditStep.from_dict(entry) for entry in manifest["edit"]["steps"]]


def test_norms_that_are_stored_otherwise_are_not_folded(tmp_path: Path) -> None:
    file = write_model(tmp_path / "model.gguf", small_model("nemotron", tie_word_embeddings=False), "nemotron")
    rows = directions(count=1)
    rows = DirectionRows(orthonormal_rows(rows.rows - rows.rows.mean()).astype(np.float32))
    with pytest.raises(UnsupportedError, match=r"norm\.weight' lies in 'blk.*read with -1 added"):
        bake(file, rows, tmp_path / "edited", kind="reflect", at=1)


def test_an_unknown_writer_beside_the_others_is_refused(tmp_path: Path) -> None:
    model = small_model("llama")
    tensors = {**gguf_tensors(model, "llama"), "blk.1.ffn_down.bias": np.ones(64, np.float32)}
    file = write_model(tmp_path / "model.gguf", model, "llama", tensors)
    with pytest.raises(UnsupportedError, match=r"'blk\.1\.ffn_down\.bias'.*transformers does not read"):
        bake(file, directions(), tmp_path / "edited")


def test_experts_that_transformers_does_not_read_are_edited_and_not_run(tmp_path: Path) -> None:
    model = small_model("gpt_oss")
    file = write_model(tmp_path / "model.gguf", model, "gpt_oss")
    rows = directions()
    edited = bake(file, rows, tmp_path / "edited")
    after = Checkpoint.open(edited.path)
    left = {}
    for layer in range(3):
        for name in ("attn_output.weight", "attn_output.bias", "ffn_down_exps.weight", "ffn_down_exps.bias"):
            values = after.values(f"blk.{layer}.{name}")
            outputs = np.moveaxis(values, -1 if name.endswith("bias") else -2, -1)
            left[layer, name] = np.abs(outputs @ rows.rows.T.astype(float)).max() / np.abs(values).max()
    assert len(left) == 12
    assert max(left.values()) < 1e-6
    gates = "blk.1.ffn_gate_exps.weight"
    assert np.array_equal(after.values(gates), Checkpoint.open(file).values(gates))
    assert verify(file, edited, weights_only=True).passed
    with pytest.raises(UnsupportedError, match=r"transformers finds no tensor for \d+ parameters.*llama-server"):
        loaded(edited.path)


def test_a_dry_run_counts_the_rounding_with_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weight_edit.baking.bake.disk_rate", lambda _: 1e15)
    model = small_model("llama", hidden_size=256, intermediate_size=512, head_dim=64)
    file = write_model(tmp_path / "model.gguf", model, "llama", types={"blk.1.ffn_down.weight": "Q4_K"})
    planned = bake(file, directions(256), tmp_path / "out", dry_run=True)
    assert planned.seconds == pytest.approx(256 * 512 * 40e-9)
    assert "model.gguf" in planned.files
