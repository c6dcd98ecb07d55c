"""Gains and kept lengths of quantised tensors: edited before the one rounding, balanced or not, or as bfloat16."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from tests.helpers.quantized_samples import (
    COMPRESSED,
    FINE,
    infos,
    numbers,
    projection,
    reader,
    row_storage,
    store,
    torch_tensor,
)
from tests.helpers.quantized_tensors import MXFP4, STORAGES, WIDTH, experts, linear, source, written
from tests.helpers.rewriting import rewrite
from weight_edit.baking.tensors import edited_tensors
from weight_edit.checkpoint.integrity.formula import check_formula
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.dequantize import AxisEdit, Transposed, dequantised
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import ablation

GAINS = np.random.default_rng(7).uniform(0.5, 2, WIDTH)


def lengths(matrix: np.ndarray) -> np.ndarray:
    return np.linalg.norm(matrix, axis=-2)


def exact(before: np.ndarray, v: np.ndarray, kind: str, gains: np.ndarray = GAINS) -> np.ndarray:
    """The edit of columns in float64."""
    if kind == "gains":
        before = gains[:, None] * before
    after = before - v @ (v.T @ before)
    if kind == "keep_norms":
        after *= (lengths(before) / lengths(after))[..., None, :]
    return after


def options(kind: str, gains: np.ndarray = GAINS) -> dict[str, Any]:
    return {"gains": gains} if kind == "gains" else {"keep_norms": True}


@pytest.mark.parametrize("kind", ["gains", "keep_norms"])
@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize("how", [EditedTensor, BalancedTensor])
def test_the_formula_is_what_is_rounded(how: type[EditedTensor], name: str, kind: str) -> None:
    storage = STORAGES[name]()
    parts = source(storage, along=8.0)
    map_ = projection(WIDTH)
    edited = how(source=storage, target=storage, map=map_, along_rows=True, **options(kind))
    after, rounding = written(edited, parts)
    before, found = numbers(storage, parts), numbers(storage, after)
    wanted = exact(before, map_.left, kind)
    coarse = 0.15 if name == "mxfp4" else 0.05
    assert np.linalg.norm(found - wanted) < coarse * np.linalg.norm(wanted)
    assert rounding.loss.error == pytest.approx(np.linalg.norm(found - wanted) / np.linalg.norm(wanted), rel=1e-9)
    behind = GAINS[:, None] * before if kind == "gains" else before
    left = np.linalg.norm(map_.left.T @ found) / np.linalg.norm(map_.left.T @ behind)
    assert rounding.loss.left == pytest.approx(left, rel=1e-9)
    if how is BalancedTensor:
        # Less than a quarter of what rounding to nearest leaves here.
        nearest = written(
            EditedTensor(source=storage, target=storage, map=map_, along_rows=True, **options(kind)), parts
        )[1]
        assert left < nearest.loss.left / 4
    if kind == "keep_norms":
        # As long as before but for the rounding of single numbers, most of which cancels out.
        np.testing.assert_allclose(lengths(found), lengths(before), rtol=coarse / 2)
        assert lengths(found).mean() > 1.02 * lengths(exact(before, map_.left, "plain")).mean()
    check = check_formula(edited, reader(parts), reader(after))
    assert check.exact
    assert check.left == pytest.approx(left, rel=1e-9)


@pytest.mark.parametrize("kind", ["gains", "keep_norms"])
@pytest.mark.parametrize("name", ["block", "row", "tensor"])
def test_vectors_that_are_rows(name: str, kind: str) -> None:
    """Blocks of 128 rows are worked on tile by tile: a row's length is that of all of its tiles."""
    storage = STORAGES[name]()
    parts = source(storage)
    map_ = projection(300, 2)
    edited = EditedTensor(source=storage, target=storage, map=map_, along_rows=False, **options(kind, GAINS[:300]))
    after, _ = written(edited, parts)
    wanted = exact(numbers(storage, parts).transpose(0, 2, 1), map_.left, kind, GAINS[:300])
    found = numbers(storage, after).transpose(0, 2, 1)
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    assert check_formula(edited, reader(parts), reader(after)).exact


@pytest.mark.parametrize("kind", ["gains", "keep_norms"])
def test_tensors_written_as_bfloat16_carry_both(kind: str) -> None:
    tensors = infos(**experts(0))
    name, map_ = "model.layers.0.mlp.experts.down_proj", projection(64, 2)
    edit = AxisEdit(1, map_, **options(kind, GAINS[:64]))
    stream = dequantised({name: edit}, tensors, MXFP4).streams[name]
    assert isinstance(stream, Transposed)
    assert (stream.gains is edit.gains, stream.keep_norms) == (True, edit.keep_norms)
    generator = np.random.default_rng(0)
    parts = {
        key: generator.integers(110, 120, info.shape, dtype=np.uint8).reshape(-1)
        for key, info in tensors.items()
        if info.dtype == "U8"
    }
    wanted = exact(numbers(storage_of(name, tensors, MXFP4, 1), parts), map_.left, kind, GAINS[:64])
    rounding = Rounding(stream.edited)
    got = torch_tensor(np.concatenate(list(stream.blocks(name, reader(parts), rounding))), *stream.target.parts[name])
    np.testing.assert_allclose(got.double().numpy().transpose(0, 2, 1), wanted, rtol=2**-8, atol=1e-12)
    assert 0 < rounding.loss.left < 0.02


@pytest.mark.parametrize("kind", ["gains", "keep_norms"])
@pytest.mark.parametrize("config", [FINE, COMPRESSED], ids=["block", "channel"])
def test_a_matrix_written_as_bfloat16_carries_both(kind: str, config: dict[str, object]) -> None:
    scale = {"weight_scale_inv": (1, 1)} if config is FINE else {"weight_scale": (8, 1)}
    tensors = infos(**{k: v for k, v in linear("a.o_proj").items() if k.endswith("weight")})
    tensors |= infos(**{f"a.o_proj.{key}": ("F32", shape) for key, shape in scale.items()})
    storage = storage_of("a.o_proj.weight", tensors, config, 0)
    parts = store(storage, np.random.default_rng(3).standard_normal((1, 8, 4)))
    map_ = projection(8, 2)
    stream = dequantised({"a.o_proj.weight": AxisEdit(0, map_, **options(kind, GAINS[:8]))}, tensors, config).streams[
        "a.o_proj.weight"
    ]
    got = torch_tensor(np.concatenate(list(stream.blocks("a.o_proj.weight", reader(parts)))), "BF16", (8, 4))
    wanted = exact(numbers(storage, parts)[0], map_.left, kind, GAINS[:8])
    np.testing.assert_allclose(got.double().numpy(), wanted, rtol=2**-8, atol=1e-12)


@pytest.mark.parametrize("kind", ["gains", "keep_norms"])
def test_a_checkpoints_streams_carry_both_whatever_becomes_of_the_format(tmp_path: Path, kind: str) -> None:
    storage = row_storage((8, 4))
    parts = store(storage, np.random.default_rng(3).standard_normal((1, 8, 4)))
    tensors = {
        "a.o_proj.weight": torch_tensor(parts["w"], "F8_E4M3", (8, 4)),
        "a.o_proj.weight_scale": torch_tensor(parts["s"], "F32", (8, 1)),
    }
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    config = COMPRESSED | {"format": "float-quantized", "config_groups": {"group_0": {"weights": weights}}}
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"quantization_config": config}))
    save_file(tensors, folder / "model.safetensors")
    base = Checkpoint.open(folder)
    map_ = ablation(projection(8).left.T)
    edit = TensorEdit(map_, 0, **options(kind, GAINS[:8]))
    keys = set()
    for dequantize, rounding in ((True, "balanced"), (False, "balanced"), (False, "nearest")):
        how = {"dequantize": dequantize, "rounding": rounding}
        plans = [edited_tensors(base, {"a.o_proj.weight": given}, **how) for given in (edit, TensorEdit(map_, 0))]
        keys |= {plan_rewrite(base, plan.edits, config=plan.config).key for plan in plans}
        out = tmp_path / f"{dequantize}-{rounding}"
        out.mkdir()
        rewrite(base, out, plans[0].edits, config=plans[0].config)
        changed = sorted(plans[0].config)
        assert check_integrity(base, out, edits=plans[0].edits, changed_config=changed).problems == ()
        assert not check_integrity(base, out, edits=plans[1].edits, changed_config=changed).ok
    assert len(keys) == 6
