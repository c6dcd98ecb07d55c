"""An adapter that is dosed is the bake at that strength, or is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from tests.helpers.edit_kinds import directions
from tests.helpers.families import save_family
from tests.helpers.family_models import load, logits, rows
from weight_edit.adapters.adapter import adapter
from weight_edit.adapters.strengths import check_strengths
from weight_edit.baking.bake import bake
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.step import EditStep


def baked(base: Path, place: Path, strength: float, **options: Any) -> torch.Tensor:
    bake(base, rows(2), place, strength=strength, **options)
    return logits(load(place))


@pytest.mark.parametrize(
    ("family", "options"),
    [("gemma2", {"embeddings": "untie"}), ("phi", {"embeddings": "skip"})],
)
def test_a_folder_or_a_scale_is_the_bake_at_that_strength(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Behind norms too, and with biases, where these are the adapter's own."""
    base = save_family(family, tmp_path / "base")
    result = adapter(base, rows(2), tmp_path / "lora", strengths=(1, 0.5), **options)
    assert result.strengths == (0.5, 1)
    wanted = {0.0: logits(load(base)), **{s: baked(base, tmp_path / str(s), s, **options) for s in (0.5, 1.0)}}
    model = PeftModel.from_pretrained(load(base), str(tmp_path / "lora")).eval()
    for strength, expected in wanted.items():
        for module in model.modules():
            if isinstance(module, LoraLayer):
                module.set_scale("default", strength)
        assert (logits(model) - expected).abs().max() < 1e-4
    dosed = PeftModel.from_pretrained(load(base), str(tmp_path / "lora/strength-0.5")).eval()
    assert (logits(dosed) - wanted[0.5]).abs().max() < 1e-4
    assert (wanted[0.5] - wanted[1.0]).abs().max() > 1e-2


def test_the_folders_share_their_weights_and_are_listed(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    result = adapter(base, rows(2), tmp_path / "lora", strengths=(0.25, 1.5))
    files = [path / "adapter_model.safetensors" for path in (result.path, *result.path.glob("strength-*"))]
    assert len(files) == 3
    assert len({file.stat().st_ino for file in files}) == 1
    alphas = {
        path.parent.name: json.loads(path.read_text())["lora_alpha"] for path in result.path.rglob("*config.json")
    }
    assert alphas == {"lora": 2, "strength-0.25": 0.5, "strength-1.5": 3}
    manifest = json.loads((result.path / "weight_edit.json").read_text())
    assert manifest["adapter"]["strengths"] == [0.25, 1.5]
    assert "strength-0.25/adapter_config.json" in manifest["files"]
    # All of it is ours, and nothing else goes.
    adapter(base, rows(1), tmp_path / "lora", overwrite=True)
    assert not (tmp_path / "lora/strength-0.25").exists()


def test_strengths_are_told_apart_by_their_folders_names() -> None:
    assert check_strengths((1, 0.1234567, 0.5, 0.1234568, 0.5)) == (0.123457, 0.5, 1.0)
    with pytest.raises(UsageError, match="33 strengths are too many"):
        check_strengths([each / 100 for each in range(1, 34)])


def steps(first: DirectionRows, second: DirectionRows) -> list[EditStep]:
    return [EditStep(directions=first), EditStep(directions=second)]


def test_steps_are_linear_where_their_directions_are_orthogonal(tmp_path: Path) -> None:
    base = save_family("llama", tmp_path / "base")
    both = rows(2).rows
    adapter(
        base, steps(DirectionRows(both.rows[:1]), DirectionRows(both.rows[1:])), tmp_path / "lora", strengths=(0.5,)
    )
    oblique = steps(directions(1, seed=3), directions(1, seed=4))
    with pytest.raises(UnsupportedError, match=r"not linear in its strength: at 0\.5, '.*' changes by .*%"):
        adapter(base, oblique, tmp_path / "none", strengths=(0.5,))
    adapter(base, oblique, tmp_path / "whole", strengths=(1,))


@pytest.mark.parametrize(
    ("family", "options", "said"),
    [
        ("llama", {"kind": "norm-preserving", "rank": 4}, "norm-preserving ablation is not linear"),
        ("llama", {"kind": "reflect", "at": (1,)}, "a reflection at a layer"),
        ("llama-tied", {}, r"tied to the embedding, and at strength 0\.5"),
        ("phi", {}, r"stored whole \(PEFT's `lora_only`\)"),
        ("llama", {"strength": 1.5, "strengths": (2.0,)}, "strength"),
        ("llama", {"strengths": (0.0,)}, r"strength 0 is outside of \(0, 2\]"),
        ("llama", {"strengths": (float("nan"),)}, "strength nan"),
    ],
)
def test_what_no_runtime_can_dose_is_refused_by_name(
    family: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    base = save_family(family, tmp_path / "base")
    with pytest.raises((UnsupportedError, UsageError), match=said):
        adapter(base, rows(2), tmp_path / "lora", **{"strengths": (0.5,), **options})
    assert not (tmp_path / "lora").exists()


def test_strengths_on_the_command_line(call: Any, tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base")
    rows(1).save(tmp_path / "d.safetensors")
    asked = ("adapter", tmp_path / "base", "--directions", tmp_path / "d.safetensors", "--out", tmp_path / "lora")
    wrong = call(*asked, "--strengths", "0.5,much")
    assert (wrong.code, "--strengths takes numbers" in wrong.err) == (2, True)
    assert call(*asked, "--strengths", "0.5,1", "--json").json["strengths"] == [0.5, 1]
