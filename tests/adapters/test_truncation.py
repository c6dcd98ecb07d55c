"""What a chosen rank keeps and loses, against literal matrices and a full decomposition."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.families import save_family
from tests.helpers.family_models import rows
from weight_edit.adapters.adapter import adapter
from weight_edit.adapters.truncation import factors_of_reader, factors_of_rows, total
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import ablation, orthonormal_rows
from weight_edit.errors import UnsupportedError, UsageError

WIDTH, COUNT = 24, 60
DRAW = np.random.default_rng(4)
MATRIX = torch.from_numpy(DRAW.standard_normal((COUNT, WIDTH)))
V = orthonormal_rows(DRAW.standard_normal((2, WIDTH)))


def change(edit: TensorEdit) -> torch.Tensor:
    return edit.map.on_stored(MATRIX, 1, keep_norms=edit.keep_norms) - MATRIX


@pytest.mark.parametrize("rank", [2, 5, 20])
def test_lengths_that_are_kept_leave_nothing_along_the_directions(rank: int) -> None:
    edit = TensorEdit(ablation(V), 1, keep_norms=True)
    stream, others, loss = factors_of_rows(edit, MATRIX, rank)
    assert loss is not None
    assert (stream.shape, others.shape) == ((WIDTH, rank), (rank, COUNT))
    made, wanted = (stream.double() @ others.double()).T, change(edit)
    assert float(((MATRIX + made) @ torch.from_numpy(V).T).abs().max()) < 1e-6
    assert loss.left_along < 1e-6
    assert loss.error == pytest.approx(float((wanted - made).norm() / wanted.norm()), rel=1e-6)
    assert loss.kept == pytest.approx(float((wanted * made).sum() / wanted.square().sum()), rel=1e-6)
    # The best that these ranks can do, once the directions have theirs.
    projected = wanted + (MATRIX @ torch.from_numpy(V).T) @ torch.from_numpy(V)
    best = torch.linalg.svdvals(projected)[rank - 2 :].square().sum().sqrt() / wanted.norm()
    assert loss.error == pytest.approx(float(best), rel=0.02, abs=1e-6)


def test_fewer_ranks_than_an_edit_has_keep_the_largest() -> None:
    edit = TensorEdit(ablation(V), 1)
    exact = factors_of_rows(edit, MATRIX, None)
    assert exact[2] is None
    assert factors_of_rows(edit, MATRIX, 2)[2] is None
    stream, others, loss = factors_of_rows(edit, MATRIX, 1)
    assert loss is not None
    values = torch.linalg.svdvals(change(edit))
    assert loss.error == pytest.approx(float(values[1] / values[:2].norm()), rel=1e-5)
    assert loss.left_along == pytest.approx(loss.error, rel=1e-5)
    assert stream.shape[1] == others.shape[0] == 1


def test_what_is_left_in_a_reader_is_measured() -> None:
    """A map that is no projection: nothing but the numbers says what is left."""
    across = orthonormal_rows(DRAW.standard_normal((2, WIDTH)))
    edit = TensorEdit(LowRankMap(0.7 * V.T + across.T, V.T, None), 1)
    assert factors_of_reader(edit, MATRIX.float(), 2)[2] is None
    a, b, loss = factors_of_reader(edit, MATRIX.float(), 1)
    assert loss is not None
    made = (b @ a).double()
    wanted = -(MATRIX @ torch.from_numpy(V).T) @ torch.from_numpy(edit.map.left).T
    along = torch.from_numpy(V).T
    assert loss.error == pytest.approx(float((wanted - made).norm() / wanted.norm()), rel=1e-5)
    left = float(((MATRIX + made) @ along).norm() / (MATRIX @ along).norm())
    assert loss.left_along == pytest.approx(left, rel=1e-5)
    assert left > 0.1


def test_a_constant_is_a_rank_of_its_own() -> None:
    edit = TensorEdit(LowRankMap(V.T, V.T, DRAW.standard_normal(WIDTH)), 1)
    stream, others, loss = factors_of_rows(edit, MATRIX, None)
    assert loss is None
    assert stream.shape[1] == 3
    assert float(((stream @ others).T - change(edit)).abs().max()) < 1e-5


def test_losses_add_up_as_one_matrix() -> None:
    edit = TensorEdit(ablation(V), 1, keep_norms=True)
    halves = [factors_of_rows(edit, part, 3)[2] for part in (MATRIX[:30], MATRIX[30:])]
    joined = total(half for half in halves if half is not None)
    assert joined.change == pytest.approx(float(change(edit).square().sum()))
    assert min(half.error for half in halves if half) <= joined.error <= max(half.error for half in halves if half)


def test_a_rank_is_said_on_the_card_and_in_the_manifest(call, tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base")
    rows(2).save(tmp_path / "d.safetensors")
    asked = ("adapter", tmp_path / "base", "--directions", tmp_path / "d.safetensors", "--kind", "norm-preserving")
    refused = call(*asked, "--out", tmp_path / "none")
    assert (refused.code, "`--rank R`" in refused.err or "--rank" in refused.err) == (3, True), refused.err
    result = call(*asked, "--out", tmp_path / "lora", "--rank", "8", "--json")
    assert result.code == 0, result.err
    said = result.json["truncation"]
    assert 0 < said["error"] < 0.3
    assert 0.9 < said["kept"] < 1.0
    assert said["left"] < 1e-5
    assert len(said["modules"]) == len(result.json["modules"])
    card = (tmp_path / "lora/README.md").read_text(encoding="utf-8")
    assert "cut to rank 8" in card
    assert "is left along the directions" in card


def test_ranks_out_of_range_and_tied_embeddings_are_refused(tmp_path: Path) -> None:
    base = save_family("llama-tied", tmp_path / "base")
    for rank in (0, -1, 5000):
        with pytest.raises(UsageError, match="rank"):
            adapter(base, rows(1), tmp_path / "lora", rank=rank)
    with pytest.raises(UnsupportedError, match="tied to the embedding"):
        adapter(base, rows(1), tmp_path / "lora", kind="norm-preserving", rank=4)
    with pytest.raises(UnsupportedError, match="tied to the embedding"):
        adapter(base, rows(2), tmp_path / "lora", rank=1)
