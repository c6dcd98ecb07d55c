"""Copies say the same as the model: its rotary base twice, or its numbers in float32. An unrounded edit is PEFT's."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stacks.cases import EDITS, cases, unrounded
from stacks.copies import in_float32, is_rounded, with_earlier_keys
from stacks.small_models import small_model

GEMMA = {
    "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
    },
}


@pytest.mark.parametrize(
    ("config", "added"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}, {"rope_theta": 1e5}),
        (GEMMA, {"rope_theta": 5e5, "rope_local_base_freq": 5e3, "sliding_window_pattern": 6}),
    ],
    ids=["one base", "two bases"],
)
def test_a_copy_has_the_keys_beside_its_own(tmp_path: Path, config: dict, added: dict) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (base / "model.safetensors").write_bytes(b"weights")
    copy = with_earlier_keys(base, tmp_path / "copy")
    assert json.loads((copy / "config.json").read_text(encoding="utf-8")) == {**config, **added}
    assert (copy / "model.safetensors").read_bytes() == b"weights"
    assert json.loads((base / "config.json").read_text(encoding="utf-8")) == config


def in_bfloat16(folder: Path) -> Path:
    tensors = {name: each.bfloat16() for name, each in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}), encoding="utf-8")
    return folder


def test_a_copy_in_float32_has_the_same_numbers(tmp_path: Path) -> None:
    base = in_bfloat16(small_model("Llama", tmp_path / "base"))
    before, after = (load_file(each / "model.safetensors") for each in (base, in_float32(base, tmp_path / "copy")))
    assert before.keys() == after.keys()
    assert all(each.dtype == torch.float32 for each in after.values())
    assert all(torch.equal(before[name].float(), each) for name, each in after.items())
    assert is_rounded(base)
    assert not is_rounded(tmp_path / "copy")


def test_the_unrounded_edit_is_the_adapter_merged_and_the_baked_one_is_not(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = in_bfloat16(small_model("Llama", tmp_path / "base"))
    _, edit = cases(base, tmp_path / "edits", edits={"ablation": EDITS["ablation"]})
    whole = unrounded(base, edit)
    assert whole
    models = [AutoModelForCausalLM.from_pretrained(each, dtype=torch.float32) for each in (whole, edit.model, base)]
    merged = PeftModel.from_pretrained(models.pop(), edit.adapter).merge_and_unload()
    with torch.no_grad():
        ours, rounded, theirs = (each(torch.tensor([[5, 6, 7]])).logits for each in (*models, merged))
    assert (ours - theirs).abs().max() < 1e-4 < 1e-2 < (rounded - theirs).abs().max()


def test_there_is_no_unrounded_edit_of_what_is_in_float32(tmp_path: Path) -> None:
    base = small_model("Llama", tmp_path / "base")
    first, edit = cases(base, tmp_path / "edits", edits={"ablation": EDITS["ablation"]})
    assert unrounded(base, edit) is None
    assert unrounded(base, first) is None
