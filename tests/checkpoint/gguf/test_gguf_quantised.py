"""Tensors of every edited type in one file: what is left by the package's own decoder, and no byte elsewhere."""

import threading
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.helpers.checkpoint_samples import Factors
from tests.helpers.ggml_samples import random_blocks
from tests.helpers.gguf_files import Stored, mixed_entries, write_gguf
from tests.helpers.rewriting import rewrite
from weight_edit.baking.tensors import edited_tensors
from weight_edit.checkpoint.gguf.types import GGML_TYPES
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.quantized.ggml import GGML_BLOCKS
from weight_edit.checkpoint.rewrite.ahead import Ahead
from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import TensorWriter
from weight_edit.checkpoint.tensor.storage import Bytes
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.errors import UsageError

WIDTH = 512
ROW = np.random.default_rng(7).standard_normal((WIDTH, 1))
ROW /= np.linalg.norm(ROW)
NUMBERS = {each.name: number for number, each in GGML_TYPES.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A file in which each type has two tensors to edit, one along columns and one along rows, and one that stays."""
    tensors: dict[str, Stored] = {}
    for seed, kind in enumerate(GGML_BLOCKS):
        for place in ("down", "embd", "up"):
            raw = random_blocks(kind, WIDTH, WIDTH, seed, real=True)
            tensors[f"{place}.{kind}.weight"] = Stored(NUMBERS[kind], [WIDTH, WIDTH], raw.tobytes())
        tensors[f"norm.{kind}.weight"] = Stored.of(np.random.default_rng(seed).standard_normal(WIDTH - 3))
    path = tmp_path_factory.mktemp("base") / "m.gguf"
    return Checkpoint.open(write_gguf(path, mixed_entries(), tensors))


def decoded(checkpoint: Checkpoint, name: str) -> np.ndarray:
    """A tensor's numbers by the package."""
    info = checkpoint.tensors[name]
    raw = np.frombuffer(b"".join(checkpoint.raw(name)), np.uint8)
    kind = gguf.GGMLQuantizationType[info.dtype]
    return np.asarray(gguf.dequantize(raw.reshape(WIDTH, -1), kind), np.float64)


def test_every_type_is_edited_in_place_and_next_to_nothing_is_left(tmp_path: Path, base: Checkpoint) -> None:
    writers = ablation(base)
    edits = [writer.target.name for writer in writers]
    assert len(edits) == 2 * len(GGML_BLOCKS) == 26
    result = rewrite(base, tmp_path, writers)
    assert set(result.losses) == set(edits)
    edited = Checkpoint.open(tmp_path)
    assert edited.size == base.size
    before, after = ((side.path / "m.gguf").read_bytes() for side in (base, edited))
    places = np.flatnonzero(np.frombuffer(before, np.uint8) != np.frombuffer(after, np.uint8))
    ranges = sorted((base.tensors[name].begin, base.tensors[name].end) for name in edits)
    owners = np.searchsorted([begin for begin, _ in ranges], places, side="right") - 1
    assert set(owners) == set(range(len(ranges)))
    assert all(places[owners == number].max() < end for number, (_, end) in enumerate(ranges))
    for name in edits:
        there, here = (decoded(side, name) for side in (base, edited))
        left, was = (np.linalg.norm(ROW.T @ w if name.startswith("down") else w @ ROW) for w in (here, there))
        assert left < 0.005 * was, name
    report = check_integrity(base, edited, edits=writers)
    assert report.problems == ()
    assert (report.tensors_edited, report.tensors_equal) == (len(edits), len(base.tensors) - len(edits))


@pytest.mark.parametrize("rounding", ["balanced", "nearest"])
def test_without_a_change_every_type_s_bytes_are_the_same(tmp_path: Path, base: Checkpoint, rounding: str) -> None:
    nothing = np.zeros((WIDTH, 1))
    edits = {
        name: TensorEdit(axis=0 if name.startswith("down") else 1, map=Factors(nothing, nothing))
        for name in base.tensors
        if name.startswith(("down", "embd"))
    }
    rewrite(base, tmp_path, edited_tensors(base, edits, rounding=rounding).edits)
    edited = Checkpoint.open(tmp_path)
    same = [name for name in base.tensors if b"".join(base.raw(name)) == b"".join(edited.raw(name))]
    # Two codes of MXFP4 stand for zero, one of them with a sign.
    assert {name for name in base.tensors if name not in same} <= {"down.MXFP4.weight", "embd.MXFP4.weight"}
    for name in ("down.MXFP4.weight", "embd.MXFP4.weight"):
        assert np.array_equal(decoded(base, name), decoded(edited, name))


def ablation(base: Checkpoint) -> list[TensorWriter]:
    """The edits of all tensors to be edited, along one direction."""
    edits = {
        name: TensorEdit(axis=0 if name.startswith("down") else 1, map=Factors(ROW, ROW))
        for name in base.tensors
        if name.startswith(("down", "embd"))
    }
    return list(edited_tensors(base, edits).edits)


@pytest.mark.parametrize("room", [1 << 18, 1 << 28])
def test_tensors_made_ahead_give_the_same_file(
    tmp_path: Path, base: Checkpoint, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("weight_edit.checkpoint.rewrite.ahead.MOST_AHEAD", room)
    taken: list[bool] = []
    take = Ahead.taken

    def taking(self: Ahead, number: int) -> Bytes | None:
        found = take(self, number)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(Ahead, "taken", taking)
    plan = plan_rewrite(base, ablation(base))
    results = []
    for lanes in (1, 4):
        (tmp_path / str(lanes)).mkdir()
        results.append(write_checkpoint(plan, tmp_path / str(lanes), lanes=lanes))
        assert any(taken) == (lanes > 1)
    assert (tmp_path / "1" / "m.gguf").read_bytes() == (tmp_path / "4" / "m.gguf").read_bytes()
    assert results[0].losses == results[1].losses
    assert (results[0].bytes_edited, results[0].bytes_copied) == (results[1].bytes_edited, results[1].bytes_copied)


def test_an_error_in_a_tensor_made_ahead_stops_all(tmp_path: Path, base: Checkpoint) -> None:
    path = tmp_path / "m.gguf"
    raw = bytearray((base.path / "m.gguf").read_bytes())
    info = base.tensors["embd.Q6_K.weight"]
    raw[info.begin + 208 : info.begin + 210] = np.array([np.inf], "<f2").tobytes()
    path.write_bytes(raw)
    damaged = Checkpoint.open(path)
    (tmp_path / "out").mkdir()
    before = threading.active_count()
    with pytest.raises(UsageError, match=r"'embd\.Q6_K\.weight' has 1 scales that are not finite"):
        write_checkpoint(plan_rewrite(damaged, ablation(damaged)), tmp_path / "out", lanes=4)
    assert threading.active_count() == before
