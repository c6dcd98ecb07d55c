"""The command's way with quantised models: baked in their format, said, verified, and dequantised when asked to."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.helpers.quantized_models import qwen3_fine_grained
from weight_edit.baking.bake import BakeResult, bake
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.verification.verify import verify

ROWS = DirectionRows(torch.nn.functional.normalize(torch.randn(1, 256, generator=torch.Generator().manual_seed(3))))
TOKENS = torch.tensor([[1, 5, 9, 2, 40, 33, 7, 7, 12, 3, 47, 0]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen3_fine_grained(tmp_path_factory.mktemp("fp8") / "base").folder


def worst(result: BakeResult, key: str) -> float:
    assert result.rounding is not None
    return max(loss[key] for loss in result.rounding.values())


def test_fp8_is_edited_in_its_format_and_the_rounding_is_said(base: Path, tmp_path: Path) -> None:
    balanced = bake(base, ROWS, tmp_path / "balanced")
    nearest = bake(base, ROWS, tmp_path / "nearest", rounding="nearest")
    assert set(balanced.rounding or {}) == {name for name in balanced.tensors if name.endswith("proj.weight")}
    assert worst(balanced, "error") < 0.05
    assert worst(balanced, "left") < 0.01 < worst(nearest, "left")
    assert worst(nearest, "error") < worst(balanced, "error")
    # The scales of FP8 weights are accounted for.
    assert balanced.extra == ()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "balanced"))
    assert {name: tensor.dtype for name, tensor in before.items()} == {n: t.dtype for n, t in after.items()}
    for folder, said in ((tmp_path / "balanced", None), (tmp_path / "nearest", "nearest")):
        manifest = json.loads((folder / "weight_edit.json").read_text(encoding="utf-8"))
        assert manifest["edit"].get("rounding") == said
        assert "rounded to their format" in manifest["edit"]["class"]
        checked = verify(base, folder, weights_only=True)
        exact = [problem for problem in checked.problems if "of V^T W is left" not in problem]
        assert exact == []
        assert checked.weights.exact == checked.weights.compared


def test_dequantised_tensors_are_bfloat16_and_load(base: Path, tmp_path: Path) -> None:
    result = bake(base, ROWS, tmp_path / "out", dequantize=True)
    assert all(name.endswith("_scale_inv") for name in result.removed)
    tensors = load_file(tmp_path / "out/model.safetensors")
    config = json.loads((tmp_path / "out/config.json").read_text(encoding="utf-8"))
    skipped = config["quantization_config"]["modules_to_not_convert"]
    for name in result.tensors:
        assert tensors[name].dtype == torch.bfloat16
        assert name + "_scale_inv" not in tensors
        if name.endswith("proj.weight"):
            assert name.removesuffix(".weight") in skipped
    assert verify(base, tmp_path / "out", weights_only=True).passed
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in (base, tmp_path / "out")]
    for model in models:
        for parameter in model.parameters():
            parameter.data = parameter.data.float()
    with torch.no_grad():
        before, after = (model(TOKENS).logits for model in models)
    assert torch.isfinite(after).all()
    assert not torch.allclose(before, after, atol=1e-3)


def test_a_rounding_that_is_not_known_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="balanced, nearest"):
        bake(base, ROWS, tmp_path / "out", rounding="stochastic")
