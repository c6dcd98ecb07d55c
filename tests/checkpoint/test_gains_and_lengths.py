"""Gains before the map and lengths kept after it: the engine is the formula in memory; checks and keys know both."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.checkpoint_samples import bits, edit_of, make_checkpoint
from tests.helpers.edit_samples import Map, random_map
from tests.helpers.edited_tensors import AXES, FORMATS, TORCH, order, random_tensor, reader
from tests.helpers.rewriting import rewrite
from weight_edit.baking.tensors import edited_tensors
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor import storage as storages
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.scratch import scratch
from weight_edit.checkpoint.tensor.storage import Matrix, Plain
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import ablation, orthonormal_rows
from weight_edit.errors import UsageError

KINDS = ("gains", "keep_norms")


def gains_of(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-2, 2, width)


def edit_for(kind: str, width: int, axis: int, rank: int = 2, seed: int = 0) -> TensorEdit:
    linear_map = random_map(width, min(rank, width), seed, constant=kind == "gains")
    ours = LowRankMap(linear_map.left, linear_map.right, linear_map.constant)
    return TensorEdit(ours, axis, gains_of(width, seed) if kind == "gains" else None, kind == "keep_norms")


def stream(edit: TensorEdit, dtype: str, shape: tuple[int, ...]) -> EditedTensor:
    storage = Plain("w", dtype, shape, edit.axis)
    return EditedTensor(
        source=storage,
        target=storage,
        map=edit.map,
        along_rows=Matrix.of(shape, edit.axis).along_rows,
        gains=edit.gains,
        keep_norms=edit.keep_norms,
    )


def engine(edit: TensorEdit, tensor: torch.Tensor, dtype: str) -> bytes:
    return b"".join(
        block.tobytes() for block in stream(edit, dtype, tuple(tensor.shape)).blocks("w", reader(bits(tensor)))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("tile", [None, 100], ids=["one-tile", "many-strips"])
def test_the_engine_is_the_formula_in_memory(kind, shape, axis, dtype, tile, monkeypatch):
    if tile is not None:
        shape = tuple(-(-size // 8) for size in shape)
        monkeypatch.setattr(storages, "TILE", tile)
    tensor = random_tensor(shape, dtype, 4)
    edit = edit_for(kind, shape[axis], axis, 3)
    found, wanted = engine(edit, tensor, dtype), edit(tensor)
    if dtype == "F64":
        got = torch.from_numpy(np.frombuffer(found).reshape(shape).copy())
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-13 * float(wanted.abs().max()))
        return
    apart = np.abs(order(found, dtype) - order(bits(wanted), dtype))
    assert apart.max() <= 1
    assert np.mean(apart == 0) >= 0.999
    assert found != bits(tensor) or shape[axis] == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_lengths_are_kept_and_nothing_else_of_the_map_is_lost(axis):
    rows = orthonormal_rows(np.random.default_rng(2).standard_normal((3, 300)))
    tensor = random_tensor((300, 700) if axis == 0 else (700, 300), "F64", 1)
    found = engine(TensorEdit(ablation(rows), axis, keep_norms=True), tensor, "F64")
    after = torch.from_numpy(np.frombuffer(found).reshape(tensor.shape).copy())
    torch.testing.assert_close(after.norm(dim=axis), tensor.norm(dim=axis), rtol=1e-13, atol=0)
    assert np.tensordot(rows, after.numpy(), axes=(1, axis)).max() < 1e-12 * float(tensor.norm())
    cosines = (after * ablation(rows).on_stored(tensor, axis)).sum(axis) / after.norm(dim=axis)
    torch.testing.assert_close(cosines, ablation(rows).on_stored(tensor, axis).norm(dim=axis))


@pytest.mark.parametrize("axis", [0, 1])
def test_vectors_of_which_nothing_or_little_is_left(axis):
    rows = orthonormal_rows(np.random.default_rng(2).standard_normal((2, 96)))
    other = orthonormal_rows(np.vstack([rows, np.random.default_rng(3).standard_normal(96)]))[2]
    columns = np.stack([rows[0] * 5, np.zeros(96), rows.sum(0) + 1e-6 * other, rows[1] + 1e-10 * other, other], axis=1)
    tensor = torch.from_numpy(columns if axis == 0 else np.ascontiguousarray(columns.T))
    found = np.frombuffer(engine(TensorEdit(ablation(rows), axis, keep_norms=True), tensor, "F64"))
    after = found.reshape(tensor.shape) if axis == 0 else found.reshape(tensor.shape).T
    assert not after[:, [0, 1, 3]].any()
    np.testing.assert_allclose(np.linalg.norm(after[:, [2, 4]], axis=0), [2**0.5, 1], rtol=1e-9)
    # Six digits were lost to the subtraction, the other ten are right.
    np.testing.assert_allclose(after[:, 2], 2**0.5 * other, atol=1e-8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_damaged_source_is_named(bad, kind, axis):
    tensor = torch.randn(40, 40)
    tensor[3, 4] = bad
    with pytest.raises(UsageError, match="'w' has 1 NaN or infinite values"):
        engine(edit_for(kind, 40, axis), tensor, "F32")
    zero = TensorEdit(LowRankMap.identity(40), axis, gains=np.zeros(40))
    with pytest.raises(UsageError, match="'w' has 1 NaN or infinite values"):
        engine(zero, tensor, "F32")


@pytest.mark.parametrize("axis", [0, 1])
def test_lengths_are_kept_in_fixed_memory(axis):
    """A tensor of 32 MiB, read three times, in a few MiB."""
    shape = (4096, 2048) if axis == 0 else (2048, 4096)
    raw = np.random.default_rng(0).standard_normal(shape).astype(np.float32).reshape(-1).view(np.uint8)
    edited = stream(edit_for("keep_norms", 4096, axis), "F32", shape)

    def read(name, offset, into):
        into[:] = raw[offset : offset + into.size]

    tracemalloc.start()
    written = sum(block.size for block in edited.blocks("w", read, None, scratch))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written == raw.size
    assert peak < 12 << 20


def test_the_plans_key_tells_edits_apart(tmp_path):
    """By each of their figures: else --resume would go on with another edit's files."""
    source = Checkpoint.open(make_checkpoint(tmp_path / "base", {"w": torch.randn(6, 6)}))
    linear_map, ones = ablation(np.eye(6)[:1]), np.ones(6)
    nothing = LowRankMap.identity(6)
    edits = [
        TensorEdit(linear_map, 0),
        TensorEdit(linear_map, 0, keep_norms=True),
        TensorEdit(linear_map, 0, gains=ones),
        TensorEdit(linear_map, 0, gains=2 * ones),
        TensorEdit(linear_map, 1, gains=ones),
        TensorEdit(nothing, 0),
        TensorEdit(nothing, 0, keep_norms=True),
        TensorEdit(nothing, 0, gains=ones),
        TensorEdit(LowRankMap(nothing.left, nothing.right, ones), 0),
        TensorEdit(LowRankMap(nothing.left, nothing.right, ones), 0, gains=ones),
    ]
    keys = [plan_rewrite(source, edited_tensors(source, {"w": edit}).edits).key for edit in edits]
    assert len(set(keys)) == len(edits)
    assert plan_rewrite(source, edited_tensors(source, {"w": edits[2]}).edits).key == keys[2]


class Pair:
    """A checkpoint with a matrix either way round, a stack of experts, a norm and a bias; and its edit on disk."""

    def __init__(self, root: Path, dtype: str, kind: str) -> None:
        shapes = {"down": (24, 40), "up": (40, 24), "experts": (3, 24, 7), "bias": (24,), "norm": (24,)}
        tensors = {name: random_tensor(shape, dtype, n) for n, (name, shape) in enumerate(shapes.items())}
        self.base = Checkpoint.open(make_checkpoint(root / "base", tensors, extras=False))
        self.tensors = tensors
        axes = {"down": 0, "up": 1, "experts": 1, "bias": 0}
        self.edits = {name: edit_for(kind, 24, axis, 6) for name, axis in axes.items()}
        nothing = LowRankMap.identity(24)
        self.edits["norm"] = TensorEdit(LowRankMap(nothing.left, nothing.right, np.ones(24)), 0, gains=np.zeros(24))
        self.out = root / "out"
        self.out.mkdir()

    def write(self, edits: Mapping[str, TensorEdit]) -> None:
        rewrite(self.base, self.out, edited_tensors(self.base, edits).edits)

    def report(self):
        return check_integrity(self.base, self.out, edits=edited_tensors(self.base, self.edits).edits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", FORMATS)
def test_what_was_written_passes_the_check_and_is_the_formula(tmp_path, dtype, kind):
    pair = Pair(tmp_path, dtype, kind)
    pair.write(pair.edits)
    report = pair.report()
    assert report.problems == ()
    assert report.tensors_edited == 5
    assert not any(edit.inexact for edit in report.edits)
    after = load_file(pair.out / "model.safetensors")
    assert torch.equal(after["norm"], torch.ones(24, dtype=TORCH[dtype]))
    for name, edit in pair.edits.items():
        atol = 0 if dtype != "F64" else 1e-11
        torch.testing.assert_close(after[name], edit(pair.tensors[name]), rtol=torch.finfo(TORCH[dtype]).eps, atol=atol)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_that_forgot_either_fails_the_check(tmp_path, kind):
    pair = Pair(tmp_path, "BF16", kind)
    pair.write({name: TensorEdit(edit.map, edit.axis) for name, edit in pair.edits.items()})
    problems = "\n".join(pair.report().problems)
    for name in pair.edits:
        assert f"'{name}': differs from the edit applied to the base's" in problems


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_left_is_measured_against_the_numbers_behind_the_gains(tmp_path, axis):
    """Gains that hide the direction in the base: against its own numbers far too much or too little would be left."""
    v = np.zeros((24, 1))
    v[0] = 1
    gains = np.ones(24)
    gains[0] = 1e3
    half = Map(0.5 * v, v)
    tensor = random_tensor((24, 24), "F32", 0)
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", {"w": tensor}, extras=False))
    edit = TensorEdit(LowRankMap(half.left, half.right), axis, gains=gains)
    out = make_checkpoint(tmp_path / "out", {"w": edit(tensor)}, extras=False)
    (found,) = check_integrity(base, out, edits=edited_tensors(base, {"w": edit}).edits).edits
    assert found.ok
    assert found.left == pytest.approx(0.5, rel=1e-6)
    # Lengths that are kept: what is left grows with the vectors, and is still measured against the base's own.
    kept = TensorEdit(edit.map, axis, keep_norms=True)
    save_file({"w": kept(tensor)}, out / "model.safetensors", metadata={"format": "pt"})
    (found,) = check_integrity(base, out, edits=edited_tensors(base, {"w": kept}).edits).edits
    after = np.moveaxis(kept(tensor).double().numpy(), axis, 0)
    before = np.moveaxis(tensor.double().numpy(), axis, 0)
    reference = max(np.linalg.norm(before[0]), np.linalg.norm(before) / 24**0.5)
    assert found.left == pytest.approx(np.linalg.norm(after[0]) / reference, rel=1e-6)


def test_a_map_without_directions_goes_through_the_check(tmp_path):
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", {"w": torch.randn(5, 4)}, extras=False))
    edit = TensorEdit(LowRankMap.identity(4), 1)
    (tmp_path / "out").mkdir()
    rewrite(base, tmp_path / "out", edited_tensors(base, {"w": edit}).edits)
    report = check_integrity(base, tmp_path / "out", edits=edited_tensors(base, {"w": edit}).edits)
    assert report.problems == ()
    assert (report.edits[0].left, report.edits[0].inexact) == (0.0, 0)
    assert load_file(tmp_path / "out/model.safetensors")["w"].equal(base.read("w"))


def test_what_does_not_go_together_is_refused(tmp_path):
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", {"w": torch.randn(5, 4)}, extras=False))
    plain = edit_of(base, "w", None)
    with pytest.raises(ValueError, match="belong to a map"):
        EditedTensor(source=plain.source, target=plain.target, map=None, along_rows=False, gains=np.ones(4))
    with pytest.raises(ValueError, match="belong to a map"):
        EditedTensor(source=plain.source, target=plain.target, map=None, along_rows=False, keep_norms=True)
    for stream_map, gains in ((random_map(4, 1, 0, constant=True), None), (random_map(4, 1, 0), np.ones(4))):
        with pytest.raises(ValueError, match="neither gains nor a constant"):
            EditedTensor(
                source=plain.source, target=plain.target, map=stream_map, along_rows=False, gains=gains, keep_norms=True
            )
