"""diff finds what a checkpoint was edited with, and claims nothing where there is nothing."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.difference_samples import WRITERS, ablated, cosines, directions, random_tensors, save_tensors
from tests.helpers.families import save_family
from weight_edit.baking.bake import bake
from weight_edit.difference import pairs
from weight_edit.difference.diff import diff
from weight_edit.difference.files import width_of
from weight_edit.difference.result import Difference
from weight_edit.directions.directions import load_directions
from weight_edit.errors import UsageError

WIDTH = 64
BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32


def baked(root: Path, family: str, dtype: torch.dtype, k: int = 1, **options) -> tuple[Difference, np.ndarray]:
    """The difference that an edit of a random model makes, and the directions it was made with."""
    save_family(family, root / "base", dtype=dtype)
    rows = directions(k, WIDTH)
    bake(root / "base", rows, root / "out", **options)
    return diff(root / "base", root / "out"), rows.direction.numpy()


def test_the_organism_tells_what_it_was_edited_with(tmp_path):
    rows = directions(1, 128)
    bake("organism", rows, tmp_path / "out")
    found = diff("organism", tmp_path / "out")
    assert cosines(found.rows, rows.direction.numpy()).min() > 0.9999
    assert found.explained == pytest.approx(1.0, abs=1e-4)
    assert found.strength == pytest.approx(1.0, abs=1e-4)
    assert len(found.tensors) == 13
    assert {tensor.rank for tensor in found.tensors} == {1}
    assert found.directions[0].is_ablation


@pytest.mark.parametrize(
    ("family", "dtype", "k", "strength"),
    [
        ("llama", BF16, 1, 1.0),
        ("llama", F32, 3, 1.0),
        ("llama", BF16, 3, 0.5),
        ("llama", F16, 1, 2.0),
        ("gpt2", F32, 1, 1.0),
        ("gpt2", BF16, 3, 2.0),
        ("qwen2-tied", BF16, 2, 1.0),
    ],
)
def test_directions_and_strength_of_a_baked_edit(family, dtype, k, strength, tmp_path):
    found, rows = baked(tmp_path, family, dtype, k, strength=strength)
    assert found.rows.shape == (k, WIDTH)
    assert np.abs(found.rows @ found.rows.T - np.eye(k)).max() < 1e-5
    assert cosines(found.rows, rows).min() > 0.999
    assert found.strength == pytest.approx(strength, abs=2e-3)
    for tensor in found.tensors:
        assert tensor.shared is not None
        assert tensor.noise is not None
        assert tensor.shared.explained == pytest.approx(1 - tensor.noise, abs=2e-3)
        assert tensor.shared.strength == pytest.approx(strength, abs=5e-3)
        whole = 2 * strength * 1 - 1 if strength < 1 else 1 - (strength - 1) ** 2 / strength**2
        if strength in (1.0, 2.0):
            assert tensor.shared.explained_fully == pytest.approx(whole, abs=5e-3)
        assert tensor.rank == (k if len(tensor.shape) > 1 else None)
    assert all(direction.ablation > 0.999 for direction in found.directions)


def test_a_subset_of_the_layers(tmp_path):
    found, rows = baked(tmp_path, "llama", BF16, layers=[1], embeddings="skip")
    assert [tensor.name for tensor in found.tensors] == [
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.1.self_attn.o_proj.weight",
    ]
    assert cosines(found.rows, rows).min() > 0.999


def test_an_untied_unembedding_is_only_in_the_second(tmp_path):
    found, rows = baked(tmp_path, "llama-tied", F32, embeddings="untie")
    assert found.only_b == ("lm_head.weight",)
    assert "config.json" in found.files_different
    assert cosines(found.rows, rows).min() > 0.999


def test_norms_behind_the_writers_give_each_tensor_a_direction_of_its_own(tmp_path):
    """In Gemma 2 a writer is projected by the gain of its norm times the direction."""
    found, rows = baked(tmp_path, "gemma2", BF16)
    base = load_file(tmp_path / "base/model.safetensors")
    blocks = [tensor for tensor in found.tensors if "layers" in tensor.name]
    assert len(blocks) == 6
    for tensor in blocks:
        assert tensor.rank == 1
        assert tensor.own is not None
        assert tensor.own.explained > 0.999
        assert tensor.own.strength == pytest.approx(1.0, abs=5e-3)
        assert tensor.best is not None
        assert tensor.best[0] == "own"
        norm = "post_feedforward_layernorm" if "mlp" in tensor.name else "post_attention_layernorm"
        gain = 1 + base[f"{tensor.name.split('.mlp')[0].split('.self_attn')[0]}.{norm}.weight"].float().numpy()
        wanted = gain * rows / np.linalg.norm(gain * rows)
        assert cosines(found.own_rows[tensor.name], wanted).min() > 0.9999
    embedding = next(tensor for tensor in found.tensors if "embed" in tensor.name)
    assert embedding.own is not None
    assert embedding.own.explained > 0.999


@pytest.mark.parametrize("dtype", [BF16, F32], ids=str)
def test_full_rank_noise_shares_nothing(dtype, tmp_path):
    tensors = random_tensors(WIDTH, dtype)
    generator = torch.Generator().manual_seed(5)
    tuned = {n: (t.float() + 2e-3 * torch.randn(t.shape, generator=generator)).to(dtype) for n, t in tensors.items()}
    found = diff(save_tensors(tmp_path / "a", tensors, WIDTH), save_tensors(tmp_path / "b", tuned, WIDTH))
    assert len(found.tensors) == len(tensors)
    assert found.directions == ()
    assert found.rows.shape == (0, WIDTH)
    assert all(tensor.full_rank for tensor in found.tensors if len(tensor.shape) > 1)
    assert all(tensor.shared is None and tensor.own is None for tensor in found.tensors)
    with pytest.raises(UsageError, match="share no direction"):
        found.save(tmp_path / "none.safetensors")


def test_low_rank_updates_of_their_own_share_nothing(tmp_path):
    """What merging a LoRA leaves: a low rank in each tensor, and nothing in common."""
    tensors = random_tensors(WIDTH, F32)
    generator = torch.Generator().manual_seed(6)

    def update(t: torch.Tensor) -> torch.Tensor:
        if t.ndim == 1:
            return t
        factors = (torch.randn(t.shape[0], 4, generator=generator), torch.randn(4, t.shape[1], generator=generator))
        return t + 1e-3 * factors[0] @ factors[1]

    tuned = {name: update(t) for name, t in tensors.items()}
    found = diff(save_tensors(tmp_path / "a", tensors, WIDTH), save_tensors(tmp_path / "b", tuned, WIDTH))
    assert {tensor.rank for tensor in found.tensors} == {4}
    assert found.directions == ()


def test_an_ablation_below_fine_tuning_is_still_found(tmp_path):
    tensors = random_tensors(WIDTH, F32)
    rows = directions(1, WIDTH).direction
    generator = torch.Generator().manual_seed(7)
    tuned = {
        name: t + 5e-4 * torch.randn(t.shape, generator=generator) if t.ndim > 1 else t
        for name, t in ablated(tensors, rows).items()
    }
    found = diff(save_tensors(tmp_path / "a", tensors, WIDTH), save_tensors(tmp_path / "b", tuned, WIDTH))
    assert len(found.rows) == 1
    assert cosines(found.rows, rows.numpy()).min() > 0.999
    explained = [t.shared.explained for t in found.tensors if t.shared is not None and t.name.endswith("down.weight")]
    assert all(0.5 < share < 0.99 for share in explained), "what fine-tuning did is not explained"
    assert found.strength == pytest.approx(1.0, abs=0.05)


def test_something_put_along_one_direction_is_shared_and_no_ablation(tmp_path):
    tensors = random_tensors(WIDTH, F32)
    row = directions(1, WIDTH).direction
    generator = torch.Generator().manual_seed(8)
    put = {
        name: t + 0.01 * row.T @ torch.randn(1, t.shape[1], generator=generator) if name.endswith("down.weight") else t
        for name, t in tensors.items()
    }
    found = diff(save_tensors(tmp_path / "a", tensors, WIDTH), save_tensors(tmp_path / "b", put, WIDTH))
    assert cosines(found.rows, row.numpy()).min() > 0.999
    assert not found.directions[0].is_ablation
    assert found.explained is not None
    assert found.explained < 0.2


def test_norm_preserving_edits_are_explained_as_far_as_they_are(tmp_path):
    tensors = random_tensors(WIDTH, F32)
    row = directions(1, WIDTH).direction

    def kept(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        return after * before.norm(dim=0) / after.norm(dim=0)

    edited = {n: kept(tensors[n], t) if n.endswith(WRITERS) else t for n, t in ablated(tensors, row).items()}
    found = diff(save_tensors(tmp_path / "a", tensors, WIDTH), save_tensors(tmp_path / "b", edited, WIDTH))
    assert len(found.rows) >= 1
    assert cosines(found.rows[:1], row.numpy()).min() > 0.99
    assert found.explained is not None
    assert 0.8 < found.explained < 0.999


@pytest.mark.parametrize("side", ["columns", "rows"])
def test_square_tensors_alone_tell_their_side(side, tmp_path):
    """Nothing but square tensors: the side is the one on which they have something in common."""
    tensors = {n: t for n, t in random_tensors(WIDTH, F32, 6).items() if n.endswith("out.weight")}
    v = directions(1, WIDTH).direction
    project = torch.eye(WIDTH) - v.T @ v
    edited = {n: project @ t if side == "columns" else t @ project for n, t in tensors.items()}
    found = diff(save_tensors(tmp_path / "a", tensors, WIDTH), save_tensors(tmp_path / "b", edited, WIDTH))
    assert cosines(found.rows, v.numpy()).min() > 0.999
    assert {tensor.shared.side for tensor in found.tensors if tensor.shared} == {side}
    assert found.explained == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("axis", [1, 2])
def test_fused_experts(axis, tmp_path, monkeypatch):
    """Three axes, in blocks that are smaller than a matrix."""
    monkeypatch.setattr(pairs, "BLOCK", 500)
    shape = (5, WIDTH, 24) if axis == 1 else (5, 24, WIDTH)
    generator = torch.Generator().manual_seed(0)
    tensors = {f"layers.{i}.experts": torch.randn(shape, generator=generator) for i in range(2)}
    rows = directions(2, WIDTH)
    v = rows.direction
    edited = {n: t - ((t.movedim(axis, -1) @ v.T) @ v).movedim(-1, axis) for n, t in tensors.items()}
    found = diff(save_tensors(tmp_path / "a", tensors, WIDTH), save_tensors(tmp_path / "b", edited, WIDTH))
    assert cosines(found.rows, v.numpy()).min() > 0.999
    assert all(t.rank == 2 and t.shared is not None and t.shared.explained > 0.999 for t in found.tensors)


def test_a_model_is_its_own_equal(tmp_path):
    save_family("llama", tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert found.equal
    assert found.tensors == () == found.directions
    assert found.tensors_equal == len(load_file(tmp_path / "a/model.safetensors"))
    assert json.loads(json.dumps(found.to_dict()))["equal"] is True


def test_other_shards_and_files_of_the_same_tensors(tmp_path):
    save_family("llama", tmp_path / "a")
    save_family("llama", tmp_path / "b", max_shard_size="50KB")
    (tmp_path / "b/extra.txt").write_text("x", encoding="utf-8")
    (tmp_path / "b/generation_config.json").write_text("{}", encoding="utf-8")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert found.tensors == ()
    assert found.files_only_b == ("extra.txt",)
    assert found.files_different == ("generation_config.json",)
    assert not found.equal


def test_another_architecture_is_said_plainly(tmp_path):
    save_family("llama", tmp_path / "a")
    save_family("gpt2", tmp_path / "b")
    found = diff(tmp_path / "a", tmp_path / "b")
    assert found.tensors == () == found.reshaped
    assert found.only_a
    assert found.only_b
    assert found.notes == (
        "the architectures differ: LlamaForCausalLM and GPT2LMHeadModel",
        "the two have no tensor of the same name",
    )


def test_other_shapes_dtypes_and_formats(tmp_path):
    torch.manual_seed(0)
    before = {"shape": torch.ones(4, WIDTH), "cast": torch.randn(9, WIDTH), "codes": torch.zeros(4, dtype=torch.uint8)}
    before |= {"ids": torch.arange(3), "nan": torch.ones(5, 5), "zero": torch.zeros(3, 3), "one": torch.tensor(1.0)}
    after = {**before, "shape": torch.ones(5, WIDTH), "cast": before["cast"].bfloat16(), "ids": torch.arange(1, 4)}
    after |= {"codes": before["codes"] + 1, "nan": before["nan"] * float("nan"), "zero": torch.ones(3, 3)}
    found = diff(save_tensors(tmp_path / "a", before, WIDTH), save_tensors(tmp_path / "b", after, WIDTH))
    assert [(other.name, other.shapes) for other in found.reshaped] == [("shape", ((4, WIDTH), (5, WIDTH)))]
    told = {tensor.name: tensor for tensor in found.tensors}
    assert set(told) == {"cast", "ids", "codes", "nan", "zero"}
    assert told["cast"].dtypes == ("F32", "BF16")
    assert told["cast"].rank == 0, "rounding alone has no rank"
    assert told["cast"].noise == pytest.approx(1.0, abs=0.2)
    assert told["codes"].problem == told["ids"].problem == "its format is not decoded"
    assert told["nan"].problem == "has NaN or infinite values"
    assert told["zero"].relative == float("inf")
    assert found.directions == ()
    json.dumps(found.to_dict())


def test_without_a_width_no_directions_are_looked_for(tmp_path):
    tensors = random_tensors(WIDTH, F32)
    a = save_tensors(tmp_path / "a", tensors, None)
    b = save_tensors(tmp_path / "b", ablated(tensors, directions(1, WIDTH).direction), None)
    found = diff(a, b)
    assert found.directions == ()
    assert {tensor.rank for tensor in found.tensors} == {1}
    assert any("does not say how wide" in note for note in found.notes)


@pytest.mark.parametrize(
    ("config", "width"),
    [
        ({"hidden_size": 8}, 8),
        ({"n_embd": 8}, 8),
        ({"text_config": {"hidden_size": 8}, "vision_config": {"hidden_size": 4}}, 8),
        ({"hidden_size": "8"}, None),
        ({"hidden_size": True}, None),
        ({}, None),
    ],
)
def test_the_width_of_the_stream(config, width):
    assert width_of(config) == width


def test_the_saved_file_bakes_the_same_edit(tmp_path):
    found, _ = baked(tmp_path, "llama", F32)
    found.save(tmp_path / "found.safetensors")
    loaded = load_directions(tmp_path / "found.safetensors")
    assert loaded.metadata["method"] == "diff"
    assert (loaded.metadata["a"], loaded.metadata["b"]) == ("base", "out")
    bake(tmp_path / "base", loaded, tmp_path / "again")
    again = diff(tmp_path / "out", tmp_path / "again")
    assert all(tensor.relative is not None and tensor.relative < 1e-5 for tensor in again.tensors)


def test_neither_blocks_nor_threads_change_the_result(tmp_path, monkeypatch):
    tensors = random_tensors(WIDTH, BF16)
    a = save_tensors(tmp_path / "a", tensors, WIDTH)
    b = save_tensors(tmp_path / "b", ablated(tensors, directions(2, WIDTH).direction), WIDTH)
    found = []
    for block, threads in ((1 << 19, 1), (1000, 4)):
        monkeypatch.setattr(pairs, "BLOCK", block)
        monkeypatch.setattr("weight_edit.difference.diff.processors", lambda threads=threads: threads)
        found.append(diff(a, b))
    assert cosines(found[0].rows, found[1].rows).min() > 1 - 1e-5
    assert found[0].explained == pytest.approx(found[1].explained, abs=1e-4)
    assert [t.rank for t in found[0].tensors] == [t.rank for t in found[1].tensors]


def test_a_damaged_model_is_one_line(tmp_path):
    tensors = random_tensors(WIDTH, F32, 1)
    a = save_tensors(tmp_path / "a", tensors, WIDTH)
    b = save_tensors(tmp_path / "b", tensors, WIDTH)
    data = (b / "model.safetensors").read_bytes()
    (b / "model.safetensors").write_bytes(data[:-100])
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        diff(a, b)
    save_file(tensors, b / "model.safetensors")
    assert diff(a, b).tensors == ()
