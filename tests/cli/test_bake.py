"""`bake` on the command line: broken inputs in one line, nothing left behind, every card kept."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from weight_edit.organism.embedded import folder


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": "abc"},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**6},
        {"num_attention_heads": 0},
        {"hidden_size": None},
        {"rope_parameters": "x"},
        {"eos_token_id": "x"},
        {"architectures": 5},
        {"dtype": "float99"},
        {"quantization_config": "gptq"},
        {"vocab_size": -1},
        {"hidden_act": "no-such"},
    ],
)
def test_a_broken_config_is_one_line(call, change: dict, directions: Path, tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "m")
    path = tmp_path / "m/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **change}), encoding="utf-8")
    result = call("bake", tmp_path / "m", "--directions", directions, "--out", tmp_path / "o")
    assert "Traceback" not in result.err
    if result.code != 0:
        assert result.code in (2, 3)
        assert len(result.err.strip().splitlines()) == 1
        assert not (tmp_path / "o").exists()


def test_a_hostile_tensor_name_and_card_do_not_reach_the_terminal_or_yaml(
    call, directions: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    shutil.copytree(folder(), tmp_path / "m")
    tensors = load_file(tmp_path / "m/model.safetensors")
    save_file({**tensors, "evil\x1b]0;x\x07[red]": torch.zeros(2)}, tmp_path / "m/model.safetensors", {"format": "pt"})
    for card in ("---\ndate: 2023-02-30\n---\n", "---\nlicense: " + "[" * 5000 + "\n---\n"):
        (tmp_path / "m/README.md").write_text(card, encoding="utf-8")
        result = call("bake", tmp_path / "m", "--directions", directions, "--out", tmp_path / "o", "--overwrite")
        assert result.code == 0, result.err
        assert "\x1b]" not in result.out
        assert "kept as they are" in " ".join(result.out.split())


def test_a_second_copy_of_the_weights_is_said_to_be_unedited(call, directions: Path, tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "m")
    (tmp_path / "m/pytorch_model.bin").write_bytes(b"not looked into")
    result = call("bake", tmp_path / "m", "--directions", directions, "--out", tmp_path / "o")
    assert result.code == 0
    assert "pytorch_model.bin" in result.out
    assert "pytorch_model.bin" in (tmp_path / "o/README.md").read_text(encoding="utf-8")


def test_editing_an_edited_model_keeps_every_card(call, directions: Path, tmp_path: Path) -> None:
    assert call("bake", "organism", "--directions", directions, "--out", tmp_path / "a").code == 0
    assert call("bake", tmp_path / "a", "--directions", directions, "--out", tmp_path / "b").code == 0
    original = (folder() / "README.md").read_bytes()
    assert (tmp_path / "b/BASE_README.md").read_bytes() == original
    assert (tmp_path / "b/BASE_README_2.md").read_bytes() == (tmp_path / "a/README.md").read_bytes()
    assert call("verify", tmp_path / "a", tmp_path / "b", "--limit", 2).code == 0


def bad_directions(folder: Path, rows: torch.Tensor) -> Path:
    save_file({"direction": rows}, folder / "bad.safetensors")
    return folder / "bad.safetensors"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (torch.nn.functional.normalize(torch.ones(1, 64)), "64 wide"),
        (torch.full((1, 128), float("nan")), "NaN"),
        (torch.zeros(1, 128), "zero"),
        (torch.ones(2, 128) / 128**0.5, "--orthonormalize"),
        (torch.ones(1, 128), "--orthonormalize"),
    ],
)
def test_directions_that_cannot_be_used(call, rows: torch.Tensor, said: str, tmp_path: Path) -> None:
    result = call("bake", "organism", "--directions", bad_directions(tmp_path, rows), "--out", tmp_path / "out")
    assert result.code == 2
    assert said in result.err
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_direction_that_is_made_orthonormal(call, tmp_path: Path) -> None:
    path = bad_directions(tmp_path, torch.ones(128))
    assert call("bake", "organism", "--directions", path, "--out", tmp_path / "out", "--orthonormalize").code == 0


def test_an_unsupported_architecture_is_exit_3(call, directions: Path, tmp_path: Path) -> None:
    layers = ["linear_attention", "full_attention"]
    config = AutoConfig.for_model("minimax", hidden_size=128, num_hidden_layers=2, layer_types=layers)
    config.architectures = ["MiniMaxForCausalLM"]
    config.save_pretrained(tmp_path / "m")
    save_file({"x": torch.zeros(1)}, tmp_path / "m/model.safetensors")
    result = call("bake", tmp_path / "m", "--directions", directions, "--out", tmp_path / "o")
    assert result.code == 3
    assert "model.layers.0.post_attention_layernorm" in result.err
    assert not (tmp_path / "o").exists()


def test_ctrl_c_is_one_line(call, directions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weight_edit.baking.writing.write_checkpoint", interrupt)
    result = call("bake", "organism", "--directions", directions, "--out", tmp_path / "o")
    assert result.code == 130
    assert "interrupted" in result.err
    assert not list(tmp_path.iterdir())
