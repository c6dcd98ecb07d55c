"""Edited GGUF files are verified as folders are: bytes, weights, and the models themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")

from tests.helpers.gguf_files import in_parts, organism_gguf
from tests.helpers.gguf_models import small_model, write_model
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.difference.diff import diff
from weight_edit.directions.find import find_directions
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.inspection.inspect import inspect
from weight_edit.runtime.loading import load
from weight_edit.verification.verify import verify


def rows(width: int) -> DirectionRows:
    drawn = np.random.default_rng(6).standard_normal((1, width))
    return DirectionRows(orthonormal_rows(drawn).astype(np.float32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return organism_gguf(tmp_path / "model.gguf")


def test_an_edited_file_passes(file: Path, tmp_path: Path) -> None:
    edited = bake(file, rows(128), tmp_path / "edited")
    checked = verify(file, edited, limit=4)
    assert checked.problems == ()
    assert checked.leak is not None
    assert checked.weights.left is not None
    assert max(checked.leak, checked.weights.left) < 1e-6
    assert verify(file, edited, weights_only=True).passed
    # The file in it, or the folder: both are the model.
    assert load(edited.path / "model.gguf").anatomy == load(edited.path).anatomy


def test_a_changed_file_does_not(file: Path, tmp_path: Path) -> None:
    edited = bake(file, rows(128), tmp_path / "edited")
    whole = bytearray((edited.path / "model.gguf").read_bytes())
    whole[-8] ^= 255
    (edited.path / "model.gguf").write_bytes(whole)
    assert not verify(file, edited, weights_only=True).passed


def test_parts_are_edited_and_verified(file: Path, tmp_path: Path) -> None:
    parts = in_parts(file, 3)
    edited = bake(parts[0], rows(128), tmp_path / "edited")
    assert sorted(each.name for each in edited.path.glob("*.gguf")) == [part.name for part in parts]
    assert verify(parts[0], edited, limit=2).problems == ()


def test_gemmas_gains_are_those_of_its_folder(tmp_path: Path) -> None:
    model = small_model("gemma2")
    model.save_pretrained(tmp_path / "folder")
    file = write_model(tmp_path / "model.gguf", model, "gemma2")
    here, there = inspect(file), inspect(tmp_path / "folder")
    assert here.gains == there.gains
    assert here.gains is not None
    assert here.places.keys() == there.places.keys()
    assert json.dumps(here.to_dict())


def test_a_writer_in_a_type_that_is_not_edited_is_refused_by_inspect_as_by_bake(tmp_path: Path) -> None:
    model = small_model("llama", hidden_size=256, intermediate_size=512, head_dim=64)
    writes, reads = (
        write_model(tmp_path / f"{name}.gguf", model, "llama", types={f"blk.1.{name}.weight": "IQ2_XS"})
        for name in ("attn_output", "attn_q")
    )
    for work in (inspect, lambda file: bake(file, rows(256), tmp_path / "out")):
        with pytest.raises(UnsupportedError, match=r"'blk\.1\.attn_output\.weight' is stored as IQ2_XS"):
            work(writes)
    assert not (tmp_path / "out").exists()
    assert inspect(reads).quantised == "GGUF (IQ2_XS), 1 tensors"
    assert bake(reads, rows(256), tmp_path / "out").complete


def test_files_are_compared_with_files(file: Path, tmp_path: Path) -> None:
    edited = bake(file, rows(128), tmp_path / "edited")
    found = diff(file, edited.path)
    assert found.architectures == ("llama", "llama")
    assert found.width == 128
    (direction,) = found.rows
    assert abs(float(direction @ rows(128).rows[0])) == pytest.approx(1, abs=1e-4)
    with pytest.raises(UnsupportedError, match=r"model\.gguf is a GGUF file and organism a model folder.*in one form"):
        diff(file, "organism")


def test_directions_are_found_and_edits_measured_on_files(file: Path, tmp_path: Path) -> None:
    found = find_directions(file, "organism:refused:train", "organism:answered:train", n_train=16, n_validation=8)
    edited = bake(load("organism"), found, tmp_path / "folder"), bake(load(file), found, tmp_path / "edited")
    for each, base in zip(edited, ("organism", file), strict=True):
        beside = evaluate(each.path, against=base, refused="organism:refused:test", limit=8, max_new_tokens=8)
        assert beside.refused is not None
        assert beside.refused.refusal.value == 0


def test_what_a_file_cannot_be_used_for_is_said(file: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"llama\.cpp's adapters are.*converted from"):
        adapter(file, rows(128), tmp_path / "adapter", file_format="peft")
    with pytest.raises(UnsupportedError, match="needs its weights in memory"):
        load(file, offload=True)
    with pytest.raises(UsageError, match="64"):
        bake(file, rows(64), tmp_path / "edited")
