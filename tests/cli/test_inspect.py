"""`inspect` on the command line: the anatomy as JSON, and models that are not understood."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


def test_inspect_as_json(call) -> None:
    found = call("inspect", "organism", "--json").json
    assert found["anatomy"]["d_model"] == 128
    assert len(found["anatomy"]["blocks"]) == 6
    assert found["names_on_disk"]["lm_head.weight"] == "lm_head.weight"
    assert found["proof"]["leak"] < 1e-5


def test_an_unknown_model_type_is_exit_3(call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "never-heard-of"}', encoding="utf-8")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    result = call("inspect", tmp_path)
    assert result.code == 3
    assert "model_type" in result.err


def test_offline_is_said(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = call("inspect", "some-org/some-model-that-is-not-cached")
    assert result.code == 2
    assert "some-org/some-model-that-is-not-cached" in result.err
    assert len(result.err.strip().splitlines()) == 1
