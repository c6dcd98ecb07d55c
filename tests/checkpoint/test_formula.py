"""Edited tensors on disk are held to the formula, number by number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.checkpoint_samples import Factors, edit_of, make_checkpoint
from weight_edit.checkpoint.integrity import tensor_pairs as walking
from weight_edit.checkpoint.integrity.integrity import IntegrityReport, check_integrity
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.nonfinite import count_non_finite
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
WIDTH = 24


def ablation(k: int = 1, seed: int = 0) -> Factors:
    rows = np.linalg.qr(np.random.default_rng(seed).standard_normal((WIDTH, k)))[0]
    return Factors(rows, rows)


def expected(tensor: torch.Tensor, factors: Factors, axis: int) -> torch.Tensor:
    """The edit in float64, rounded once."""
    rows = tensor.double().movedim(axis, -1)
    left, right = torch.from_numpy(factors.left), torch.from_numpy(factors.right)
    return (rows - rows @ right @ left.T).movedim(-1, axis).to(tensor.dtype).contiguous()


class Sample:
    """A base of three tensors that differ in where the stream is, and its edit."""

    def __init__(self, root: Path, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(1)
        shapes = {"down": (WIDTH, 40), "embed": (50, WIDTH), "experts": (3, WIDTH, 7), "bias": (WIDTH,)}
        self.axes = {"down": 0, "embed": 1, "experts": 1, "bias": 0}
        tensors = {n: (torch.randn(s, generator=generator, dtype=torch.float64)).to(dtype) for n, s in shapes.items()}
        tensors["other"] = torch.ones(9)
        self.base = Checkpoint.open(make_checkpoint(root / "base", tensors, extras=False))
        self.factors = ablation()
        edited = {n: expected(t, self.factors, self.axes[n]) if n in shapes else t for n, t in tensors.items()}
        self.out = make_checkpoint(root / "out", edited, extras=False)

    def edits(self) -> list[EditedTensor]:
        return [edit_of(self.base, name, self.factors, axis) for name, axis in self.axes.items()]

    def change(self, name: str, change) -> None:
        path = self.out / "model.safetensors"
        tensors = load_file(path)
        tensors[name] = change(tensors[name])
        save_file(tensors, path, metadata={"format": "pt"})

    def report(self) -> IntegrityReport:
        return check_integrity(self.base, self.out, edits=self.edits())


@pytest.fixture(params=FLOATS, ids=str)
def sample(request, tmp_path) -> Sample:
    return Sample(tmp_path, request.param)


def step(tensor: torch.Tensor, units: torch.Tensor, count: int) -> torch.Tensor:
    """The largest `count` numbers, so many units in the last place further from zero."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    largest = tensor.abs().flatten().topk(count).indices
    found = tensor.clone()
    found.view(whole).view(-1)[largest] += units.to(whole)
    return found


def test_the_relative_change_of_each_tensor(sample):
    base, out = (load_file(folder / "model.safetensors") for folder in (sample.base.path, sample.out))
    changes = {check.tensor: check.change for check in sample.report().edits}
    assert changes.keys() == sample.axes.keys()
    for name, change in changes.items():
        moved = (out[name].double() - base[name].double()).norm() / base[name].double().norm()
        assert change == pytest.approx(float(moved), rel=0.02)


def test_the_formula_rounded_once_passes(sample):
    report = sample.report()
    assert report.problems == ()
    assert (report.tensors_edited, report.tensors_equal) == (4, 1)
    for edit in report.edits:
        if sample.base.tensors["down"].dtype != "F64":
            assert edit.inexact <= edit.entries // 100, "sums in another order change a rounding now and then"
        assert edit.left is not None
        assert edit.left < 3e-2


@pytest.mark.parametrize("count", [3, 960])
@pytest.mark.parametrize("both_ways", [False, True])
def test_numbers_one_unit_in_the_last_place_off_are_a_problem(sample, count, both_ways):
    """Rounding explains a number's neighbour only in the middle between the two."""
    signs = torch.ones(960, dtype=torch.int64)
    if both_ways:
        signs[::2] = -1
    # Sixty-four units of float64 are within what sums leave; there a number must be further off.
    units = signs * (1 << 33 if sample.base.tensors["down"].dtype == "F64" else 1)
    sample.change("down", lambda t: step(t, units[:count], count))
    report = sample.report()
    assert report.tensors_edited == 3
    assert len(report.problems) == 1
    assert "'down': differs from the edit applied to the base's tensor in" in report.problems[0]
    # One of the 960 may lie in the middle.
    found = next(edit for edit in report.edits if edit.tensor == "down")
    assert count - 1 <= found.different <= count


def test_the_other_neighbour_of_a_number_in_the_middle_is_counted(tmp_path):
    """1 + 2^-8 lies in the middle between two bfloat16 numbers: the sum's last bit decides to which it is rounded."""
    middle = {"w": torch.full((WIDTH, 4), 1 + 2.0**-8, dtype=torch.float32)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", middle, extras=False))
    nothing = Factors(np.zeros((WIDTH, 1)), np.zeros((WIDTH, 1)))
    edit = edit_of(base, "w", nothing, 0)
    edit.target.parts = {"w": ("BF16", (WIDTH, 4))}
    edit.target._dtype, edit.target._item = "BF16", 2
    below = torch.ones(WIDTH, 4, dtype=torch.bfloat16)
    above = torch.full_like(below, 1 + 2.0**-7)
    mixed = torch.where(torch.arange(WIDTH * 4).reshape(WIDTH, 4) % 4 == 0, above, below)
    for number, (tensor, inexact) in enumerate([(below, 0), (mixed, WIDTH)]):
        out = make_checkpoint(tmp_path / str(number), {"w": tensor}, extras=False)
        report = check_integrity(base, out, edits=[edit])
        assert (report.edits[0].inexact, report.edits[0].different) == (inexact, 0)
    # Twenty-four to one side are within six standard deviations of none, ninety-six are not.
    assert not report.edits[0].one_sided
    out = make_checkpoint(tmp_path / "above", {"w": above}, extras=False)
    report = check_integrity(base, out, edits=[edit])
    assert report.edits[0].one_sided
    assert "96 entries that are rounded otherwise than the edit's, too many" in report.problems[0]


def test_what_rounding_puts_back_is_told_from_what_the_edit_leaves(sample):
    for edit in sample.report().edits:
        assert edit.left_exact < 1e-12
        assert edit.changed
        assert (edit.left > 1e-9) == (sample.base.tensors["down"].dtype != "F64")


def test_what_is_left_is_that_of_the_file_and_not_of_the_formula(sample):
    sample.change("experts", lambda t: load_file(sample.base.path / "model.safetensors")["experts"])
    lefts = {edit.tensor: edit.left for edit in sample.report().edits}
    assert lefts["experts"] > 0.3
    assert max(left for name, left in lefts.items() if name != "experts") < 3e-2


def test_a_base_that_is_not_finite_is_named(tmp_path):
    sample = Sample(tmp_path, torch.float32)
    path = sample.base.path / "model.safetensors"
    tensors = load_file(path)
    tensors["down"][0, 0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    sample.base = Checkpoint.open(sample.base.path)
    assert "'down': tensor 'down' has 1 NaN" in "\n".join(sample.report().problems)


def test_tensors_that_change_their_format_take_the_place_of_those_that_were_read(tmp_path):
    """Numbers with scales become plain ones: the scales must go, and the header is another."""
    before = {"w": torch.randn(6, WIDTH), "w_scale": torch.ones(2), "other": torch.ones(3)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", before, extras=False))
    plain = edit_of(base, "w", ablation(), 1)
    plain.source.parts = {**plain.source.parts, "w_scale": ("F32", (2,))}
    plain.target.parts = {"w": ("BF16", (6, WIDTH))}
    plain.target._dtype, plain.target._item = "BF16", 2
    after = {"w": expected(before["w"], ablation(), 1).bfloat16(), "other": before["other"]}
    out = make_checkpoint(tmp_path / "out", after, extras=False)
    report = check_integrity(base, out, edits=[plain])
    assert report.problems == ()
    assert (report.tensors_edited, report.tensors_equal) == (1, 1)
    out = make_checkpoint(tmp_path / "kept", {**after, "w_scale": before["w_scale"]}, extras=False)
    problems = "\n".join(check_integrity(base, out, edits=[plain]).problems)
    assert "'w_scale': is there, though an edit puts another tensor in its place" in problems
    out = make_checkpoint(tmp_path / "wide", {**after, "w": after["w"].float()}, extras=False)
    assert "'w': the dtype is F32, the edit's BF16" in "\n".join(check_integrity(base, out, edits=[plain]).problems)


def test_an_added_copy_is_compared_with_what_it_copies(tmp_path):
    tensors = {"embed": torch.randn(5, WIDTH)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", tensors, extras=False))
    copy = edit_of(base, "embed", None, target="head")
    kept = edit_of(base, "embed", Factors(np.zeros((WIDTH, 1)), np.zeros((WIDTH, 1))))
    for number, (head, fine) in enumerate([(tensors["embed"].clone(), True), (tensors["embed"] + 1, False)]):
        out = make_checkpoint(tmp_path / str(number), {**tensors, "head": head}, extras=False)
        report = check_integrity(base, out, edits=[copy, kept], added=["head"])
        assert (report.tensors_added == 1) == fine
        assert any("'head': differs" in problem for problem in report.problems) != fine


def test_many_pieces_threads_and_files_give_the_same_report(tmp_path, monkeypatch):
    tensors = {f"t{i}": torch.randn(30, WIDTH) for i in range(20)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", tensors, shards=4))
    edited = {n: expected(t, ablation(), 1) if int(n[1:]) % 2 else t for n, t in tensors.items()}
    edited["t4"] = edited["t4"].clone()
    edited["t4"][-1, -1] += 1
    edited["t5"] = edited["t5"] * 1.01
    out = make_checkpoint(tmp_path / "out", edited, shards=4)
    edits = [edit_of(base, name, ablation()) for name in tensors if int(name[1:]) % 2]
    reports = []
    for chunk, threads in ((64, 4), (1 << 20, 1), (4096, 3)):
        monkeypatch.setattr(walking, "CHUNK", chunk)
        monkeypatch.setattr(walking, "processors", lambda threads=threads: threads)
        report = check_integrity(base, out, edits=edits).to_dict()
        del report["seconds"]
        reports.append(report)
    assert reports[0] == reports[1] == reports[2]
    assert [problem.split(": ")[1] for problem in reports[0]["problems"]] == ["tensor 't4'", "tensor 't5'"]


def test_a_file_that_is_cut_during_the_pass_is_a_problem(tmp_path, monkeypatch):
    big = {"w": torch.randn(400, WIDTH), "other": torch.randn(4000)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", big, extras=False))
    out = make_checkpoint(tmp_path / "out", big, extras=False)
    edit = edit_of(base, "w", Factors(np.zeros((WIDTH, 1)), np.zeros((WIDTH, 1))))
    honest = walking.Walk.run

    def cut(walk: walking.Walk, files):
        path = tmp_path / "out/model.safetensors"
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 20_000)
        return honest(walk, files)

    monkeypatch.setattr(walking.Walk, "run", cut)
    report = check_integrity(base, out, edits=[edit])
    assert not report.ok
    assert any("ends early" in problem or "changed while" in problem for problem in report.problems)


@pytest.mark.parametrize("dtype", [t for t in TORCH_DTYPES.values() if t.is_floating_point or t.is_complex], ids=str)
def test_every_bit_pattern_that_is_not_finite_is_counted(dtype):
    """All patterns of small formats, and the special ones of wide formats, against torch."""
    names = {value: name for name, value in TORCH_DTYPES.items()}
    if dtype.itemsize == 1:
        raw = torch.arange(256, dtype=torch.uint8)
    elif dtype.itemsize == 2:
        raw = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.uint8)
    else:
        special = torch.tensor([1.0, -0.0, float("inf"), float("-inf"), float("nan"), torch.finfo(dtype).max])
        raw = special.to(dtype).view(torch.uint8)
    wide = raw.view(dtype)
    wanted = int((~torch.isfinite(wide if dtype.itemsize >= 4 else wide.float())).sum())
    assert count_non_finite(raw.numpy(), names[dtype]) == wanted > 0


@pytest.mark.parametrize("name", ["I64", "BOOL", "U8"])
def test_whole_numbers_are_always_finite(name):
    assert count_non_finite(np.full(8, 255, np.uint8), name) == 0
