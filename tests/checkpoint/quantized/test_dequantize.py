"""Quantised tensors written as bfloat16: which appear, which vanish, and what the configuration says of it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.quantized_samples import (
    COMPRESSED,
    FINE,
    edit_checkpoint,
    infos,
    numbers,
    projection,
    reader,
    store,
    torch_tensor,
)
from tests.helpers.quantized_tensors import MXFP4, experts, linear
from weight_edit.checkpoint.quantized.dequantize import AxisEdit, Transposed, dequantised
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.quantized.unquantized import config_without
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding


def test_experts_leave_their_format_together_and_transposed() -> None:
    tensors = infos(**experts(0), **experts(1))
    name = "model.layers.0.mlp.experts.down_proj"
    map_ = projection(64, 2)
    plan = dequantised({name: AxisEdit(1, map_)}, tensors, MXFP4)
    assert {key: stream.target.parts[key] for key, stream in plan.streams.items()} == {
        name: ("BF16", (2, 32, 64)),
        "model.layers.0.mlp.experts.gate_up_proj": ("BF16", (2, 64, 64)),
    }
    gone = [key for stream in plan.streams.values() for key in stream.source.reads]
    assert sorted(gone) == sorted(key for key in experts(0) if not key.endswith("bias"))
    assert plan.config == {
        "quant_method": "mxfp4",
        "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head", "model.layers.0.mlp.experts"],
    }
    generator = np.random.default_rng(0)
    parts = {
        key: generator.integers(110, 120, info.shape, dtype=np.uint8).reshape(-1)
        for key, info in tensors.items()
        if info.dtype == "U8"
    }
    for key, stream in plan.streams.items():
        assert isinstance(stream, Transposed)
        raw = np.concatenate(list(stream.blocks(key, reader(parts))))
        wide = numbers(storage_of(key, tensors, MXFP4, 1), parts)
        v = map_.left
        wanted = wide - v @ (v.T @ wide) if key == name else wide
        got = torch_tensor(raw, *stream.target.parts[key]).to(torch.float64)
        # One rounding to bfloat16.
        assert torch.equal(got, torch.from_numpy(wanted).transpose(1, 2).bfloat16().to(torch.float64))
    rounding = Rounding(plan.streams[name].edited)
    assert list(plan.streams[name].blocks(name, reader(parts), rounding))
    assert 0 < rounding.loss.error < 2**-8
    assert 0 < rounding.loss.left < 0.01


@pytest.mark.parametrize("cols", [32, 96])
def test_transposing_in_several_pieces(cols: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weight_edit.checkpoint.quantized.dequantize.CHUNK", 400)
    tensors = infos(
        **{
            "x.experts.p_blocks": ("U8", (3, 50, cols // 32, 16)),
            "x.experts.p_scales": ("U8", (3, 50, cols // 32)),
        }
    )
    storage = storage_of("x.experts.p", tensors, {}, 1)
    parts = store(storage, np.random.default_rng(1).standard_normal((3, 50, cols)))
    stream = dequantised({"x.experts.p": AxisEdit(1, None)}, tensors, MXFP4).streams["x.experts.p"]
    pieces = list(stream.blocks("x.experts.p", reader(parts)))
    assert len(pieces) == 3 * cols // 4
    got = torch_tensor(np.concatenate(pieces), "BF16", (3, cols, 50)).to(torch.float64).numpy()
    assert np.array_equal(got, numbers(storage, parts).transpose(0, 2, 1))


def test_a_matrix_keeps_its_shape_and_loses_its_static_scales() -> None:
    tensors = infos(**linear("a.o_proj", static=True), **linear("a.q_proj", static=True))
    plan = dequantised({"a.o_proj.weight": AxisEdit(0, projection(8))}, tensors, COMPRESSED | {"ignore": ["lm_head"]})
    (stream,) = plan.streams.values()
    assert isinstance(stream, EditedTensor)
    assert dict(stream.target.parts) == {"a.o_proj.weight": ("BF16", (8, 4))}
    assert sorted(stream.source.reads) == ["a.o_proj.input_scale", "a.o_proj.weight", "a.o_proj.weight_scale"]
    assert plan.config is not None
    assert plan.config["ignore"] == ["lm_head", "a.o_proj"]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
def test_scales_of_activations_go_with_the_codes(dtype: torch.dtype, tmp_path: Path) -> None:
    """Readers of a plain matrix find no place for them."""
    (tmp_path / "base").mkdir()
    tensors: dict[str, torch.Tensor] = {}
    for name in ("a.o_proj", "a.q_proj"):
        tensors[f"{name}.weight"] = torch.arange(-16, 16).reshape(8, 4).to(dtype)
        tensors[f"{name}.weight_scale"] = torch.full((8, 1), 0.5)
        tensors[f"{name}.input_scale"] = torch.ones(1, dtype=torch.bfloat16)
    save_file(tensors, tmp_path / "base" / "model.safetensors")
    weights = {"num_bits": 8, "type": "int" if dtype == torch.int8 else "float", "strategy": "channel"}
    form = "int-quantized" if dtype == torch.int8 else "float-quantized"
    config = {**COMPRESSED, "format": form, "config_groups": {"group_0": {"weights": weights}}}
    (tmp_path / "base" / "config.json").write_text(json.dumps({"quantization_config": config}))
    out = edit_checkpoint(tmp_path / "base", tmp_path / "out", {"a.o_proj.weight": (0, projection(8))}, dequantise=True)
    found = load_file(out / "model.safetensors")
    assert found.keys() == tensors.keys() - {"a.o_proj.weight_scale", "a.o_proj.input_scale"}
    assert found["a.o_proj.weight"].dtype == torch.bfloat16
    assert torch.equal(found["a.q_proj.input_scale"], tensors["a.q_proj.input_scale"])


def test_nothing_quantised_is_left() -> None:
    plan = dequantised({"a.o_proj.weight": AxisEdit(0, None)}, infos(**linear("a.o_proj")), COMPRESSED)
    assert plan.config is None


def test_plain_tensors_are_left_out() -> None:
    tensors = infos(**linear("a.o_proj"), **{"embed.weight": ("BF16", (8, 4))})
    plan = dequantised({"embed.weight": AxisEdit(1, projection(4))}, tensors, COMPRESSED | {"ignore": []})
    assert not plan.streams
    assert plan.config == COMPRESSED | {"ignore": []}


LEFT = infos(**linear("m.q_proj"), **{"m.embed.weight": ("BF16", (9, 4)), "m.norm.weight": ("BF16", (4,))})


def test_without_a_list_the_plain_modules_have_to_be_named_too() -> None:
    config = config_without(FINE, ["m.o_proj.weight"], LEFT)
    assert config is not None
    assert config["modules_to_not_convert"] == ["m.embed", "lm_head", "m.o_proj"]
    assert "modules_to_not_convert" not in FINE


def test_both_lists_are_kept_alike() -> None:
    config = config_without(FINE | {"ignored_layers": ["lm_head"]}, ["m.o_proj.weight"], LEFT)
    assert config == FINE | {"ignored_layers": ["lm_head", "m.o_proj"]}


def test_the_experts_of_a_layer_are_one_module() -> None:
    names = [f"m.layers.3.mlp.experts.{n}.down_proj.weight" for n in range(3)]
    config = config_without(FINE | {"modules_to_not_convert": ["lm_head"]}, names, LEFT)
    assert config is not None
    assert config["modules_to_not_convert"] == ["lm_head", "m.layers.3.mlp.experts"]
    config = config_without(COMPRESSED, names, LEFT)
    assert config is not None
    (pattern,) = config["ignore"]
    assert pattern.startswith("re:")
    assert re.match(pattern.removeprefix("re:"), "m.layers.3.mlp.experts.2.down_proj")
    assert not re.match(pattern.removeprefix("re:"), "m.layers.30.mlp.experts.2.down_proj")


def test_experts_one_by_one_go_together() -> None:
    tensors = infos(
        **{
            key: kind
            for layer in (3, 30)
            for n in range(2)
            for proj in ("gate_proj", "down_proj")
            for key, kind in linear(f"m.layers.{layer}.mlp.experts.{n}.{proj}").items()
        },
        **linear("m.layers.3.mlp.shared_experts.down_proj"),
    )
    plan = dequantised({"m.layers.3.mlp.experts.1.down_proj.weight": AxisEdit(0, None)}, tensors, FINE)
    assert sorted(plan.streams) == sorted(
        f"m.layers.3.mlp.experts.{n}.{proj}.weight" for n in range(2) for proj in ("gate_proj", "down_proj")
    )
