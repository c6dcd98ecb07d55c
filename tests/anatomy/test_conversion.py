"""The layout of a checkpoint, proven by numbers: what is edited on disk comes back from transformers as it should."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig

from weight_edit.anatomy.disk.conversion import resolve
from weight_edit.anatomy.disk.layout import Layout
from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.narrow.classes import model_class
from weight_edit.anatomy.narrow.small import build, narrow_config, randomise
from weight_edit.anatomy.narrow.towers import narrow_multimodal
from weight_edit.errors import UnsupportedError

FAMILIES = (
    "afmoe",
    "bailing_hybrid",
    "dbrx",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v4",
    "ernie4_5_moe",
    "ernie4_5_vl_moe",
    "flex_olmo",
    "gemma3",
    "glm4_moe",
    "gpt2",
    "gpt_neox",
    "gpt_oss",
    "granitemoe",
    "granitemoehybrid",
    "hrm_text",
    "inkling2_text",
    "jamba",
    "kimi_k25",
    "kimi_linear",
    "lfm2_moe",
    "llama",
    "llama4",
    "llava",
    "longcat_flash",
    "minimax",
    "minimax_m2",
    "minimax_m3_vl",
    "mistral3",
    "mixtral",
    "molmo2",
    "nemotron_h",
    "olmo_hybrid",
    "olmoe",
    "phimoe",
    "qwen2_moe",
    "qwen2_vl",
    "qwen3_5_moe",
    "qwen3_5_text",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_vl_moe",
    "solar_open",
)
IN_MEMORY = ("gemma3", "gpt2", "jamba", "llava", "mixtral", "qwen2_vl", "qwen3_vl_moe")
"""Some of them saved with transformers' own names and layout, too."""

OPTIONS: dict[str, dict[str, Any]] = {
    "dbrx": {
        "d_model": 64,
        "n_heads": 4,
        "n_layers": 2,
        "vocab_size": 97,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4},
        "ffn_config": {"moe_num_experts": 4, "moe_top_k": 2, "ffn_hidden_size": 24, "hidden_size": 64},
    },
    "deepseek_v3": {"first_k_dense_replace": 1},
    "lfm2_moe": {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
}


def small_model(family: str) -> Any:
    options = OPTIONS.get(family, {})
    config = AutoConfig.for_model(family, **{"num_hidden_layers": 2, **options})
    if config.get_text_config() is not config:
        config = AutoConfig.for_model(family, **{"text_config": {"num_hidden_layers": 2}, **options})
        config = narrow_multimodal(config, narrow_config)
    else:
        config = narrow_config(config)
    model = model_class(config)._from_config(config, dtype=torch.float32, attn_implementation="eager")
    randomise(model, 0)
    return model


def save(model: Any, folder: Path, **options: Any) -> tuple[dict[str, Tensor], Layout]:
    """The tensors on disk, and the layout that their names and shapes alone give."""
    model.save_pretrained(folder, **options)
    tensors = load_file(folder / "model.safetensors")
    with torch.device("meta"):
        empty = type(model)(model.config)
    return tensors, resolve(empty, Stored({name: tuple(value.shape) for name, value in tensors.items()}))


def multiplied(value: Tensor, matrix: Tensor, axis: int) -> Tensor:
    return torch.tensordot(matrix, value, dims=([1], [axis])).movedim(0, axis).contiguous()


def check_axis(model: Any, folder: Path, tensors: dict[str, Tensor], layout: Layout, axis: int) -> int:
    """Edit on disk every parameter that can be edited along an axis, and see that just this is what is loaded."""
    disk = DiskNames(layout)
    generator = torch.Generator().manual_seed(axis)
    edited, expected = dict(tensors), {name: value.clone() for name, value in model.state_dict().items()}
    changed = 0
    for parameter, value in model.state_dict().items():
        if parameter not in disk or value.ndim <= axis or not value.is_floating_point():
            continue
        try:
            places = disk.edits_on_disk(parameter, axis)
        except UnsupportedError:
            # What is stored as it is can be edited whatever the axis.
            assert parameter in layout.how
            continue
        matrix = torch.randn(value.shape[axis], value.shape[axis], generator=generator)
        expected[parameter] = multiplied(value, matrix, axis)
        for name, along in places:
            edited[name] = multiplied(edited[name], matrix, along)
        changed += 1
    for target, source in model.all_tied_weights_keys.items():
        expected[target] = expected[source]
    save_file(edited, folder / "model.safetensors", metadata={"format": "pt"})
    found = type(model).from_pretrained(folder, dtype=torch.float32).state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    return changed


CASES = [(family, True) for family in FAMILIES] + [(family, False) for family in IN_MEMORY]


@pytest.mark.parametrize(("family", "original"), CASES)
def test_what_is_edited_on_disk_is_what_transformers_loads(family: str, original: bool, tmp_path: Path) -> None:
    model = small_model(family)
    tensors, layout = save(model, tmp_path, save_original_format=original)
    assert (layout.missing, layout.mismatched, layout.clashes, layout.extra) == ({}, {}, (), ())
    assert all(check_axis(model, tmp_path, tensors, layout, axis) for axis in (0, 1))
    if any(value.ndim > 2 for value in model.state_dict().values()):
        assert check_axis(model, tmp_path, tensors, layout, 2)


def test_the_language_model_alone_leaves_the_rest_as_extra() -> None:
    """A text class on a multimodal checkpoint: the prefix between is dropped, and the towers are nobody's."""
    whole = small_model("qwen3_5")
    shapes = {name: tuple(value.shape) for name, value in whole.state_dict().items()}
    text = model_class(whole.config.text_config)._from_config(whole.config.text_config)
    layout = resolve(text, Stored(shapes))
    assert layout.missing == {}
    disk = DiskNames(layout)
    assert disk.only("model.layers.0.mlp.down_proj.weight") == "model.language_model.layers.0.mlp.down_proj.weight"
    assert layout.extra
    assert all(name.startswith("model.visual.") for name in layout.extra)


def test_a_backbone_on_its_own_lacks_the_prefix(tmp_path: Path) -> None:
    model = small_model("gpt2")
    model.transformer.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "wte.weight" in tensors
    layout = resolve(model, Stored({name: tuple(value.shape) for name, value in tensors.items()}))
    assert layout.missing == {}
    assert all(check_axis(model, tmp_path, tensors, layout, axis) for axis in (0, 1))


def test_what_a_family_does_without_is_not_missing() -> None:
    model = small_model("axk1")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    bias = next(name for name in shapes if name.endswith("e_score_correction_bias"))
    del shapes[bias]
    layout = resolve(model, Stored(shapes))
    assert layout.missing == {}
    with pytest.raises(UnsupportedError, match="has no tensor"):
        DiskNames(layout).edits_on_disk(bias, 0)


def test_70_000_names_take_seconds_and_are_written_short() -> None:
    config = AutoConfig.for_model(
        "deepseek_v3", num_hidden_layers=61, n_routed_experts=384, first_k_dense_replace=1, hidden_size=16,
        moe_intermediate_size=8, num_attention_heads=2, num_key_value_heads=2, intermediate_size=8, vocab_size=32,
        q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=4, n_group=8,
    )  # fmt: skip
    model = build(config, device="meta")
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for name in [name for name in shapes if name.endswith(("experts.down_proj", "experts.gate_up_proj"))]:
        del shapes[name]
        stem = name.rpartition(".")[0]
        kinds = {"down": (16, 8)} if "down" in name else {"gate": (8, 16), "up": (8, 16)}
        shapes |= {f"{stem}.{e}.{kind}_proj.weight": shape for e in range(384) for kind, shape in kinds.items()}
    assert len(shapes) > 69_000
    started = time.monotonic()
    layout = resolve(model, Stored(shapes))
    assert time.monotonic() - started < 60
    assert (layout.missing, layout.mismatched, layout.clashes, layout.extra) == ({}, {}, (), ())
    assert len(json.dumps(asdict(layout))) < 500_000
    assert len(DiskNames(layout).edits_on_disk("model.layers.60.mlp.experts.down_proj", 1)) == 384
