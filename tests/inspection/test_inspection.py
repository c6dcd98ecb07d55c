"""inspect: the tree, what lies beside the parameters, and that it needs no weights."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.fake_hub import FakeHub
from tests.helpers.families import save_family
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.cli import entry as cli
from weight_edit.cli.tables.inspection import inspection
from weight_edit.errors import UsageError
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.inspection.inspect import Inspection, inspect

NO_WEIGHTS = "model.safetensors"


def tree(found: Inspection, width: int = 200) -> str:
    output = io.StringIO()
    inspection(found, Console(file=output, width=width))
    return output.getvalue()


def save_sample(model_type: str, folder: Path, **changes) -> Path:
    config = sample(model_type)
    for key, value in changes.items():
        setattr(config, key, value)
    narrow_model(config).save_pretrained(folder)
    return folder


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model whose weights are far longer than what is read of a shard's beginning."""
    config = LlamaConfig(
        vocab_size=4000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "large")
    LlamaForCausalLM(config).save_pretrained(tmp_path / "sharded", max_shard_size="5MB")
    return tmp_path


def ranged_bytes(hub: FakeHub) -> int:
    spans = [
        asked.range.removeprefix("bytes=").split("-") for asked in hub.asked if asked.range and "cdn/" in asked.path
    ]
    return sum(int(end) + 1 - int(begin) for begin, end in spans)


@pytest.mark.parametrize("kind", ["large", "sharded"])
def test_of_a_hub_model_config_and_headers_are_read_and_nothing_else(hub: FakeHub, large: Path, kind: str) -> None:
    (large / kind / "tokenizer.json").write_text("x" * 1_000_000)
    hub.add("org/model", large / kind)
    shards = sorted(path.name for path in (large / kind).glob("*.safetensors"))
    assert (len(shards) > 1) == (kind == "sharded")
    found = inspect("org/model")
    assert found.anatomy.n_layers == 2
    assert found.tensors["model.layers.1.mlp.down_proj.weight"] == ("F32", (256, 512))
    assert hub.sent() == []
    assert not any("tokenizer.json" in asked.path for asked in hub.asked)
    assert ranged_bytes(hub) <= len(shards) * 256 * 1024 < sum(map(len, hub.repos["org/model"].files.values())) / 4


def test_offline_what_is_cached_will_do(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from weight_edit.hub.source import resolve

    hub.add("org/model", save_family("llama", tmp_path / "m"))
    resolve("org/model")
    hub.stop()
    assert inspect("org/model").anatomy.n_layers == 3
    with pytest.raises(UsageError, match="cannot be reached"):
        inspect("org/other")


def test_a_folder_without_weights_shows_the_anatomy_and_says_so(tmp_path: Path) -> None:
    save_sample("mixtral", tmp_path / "m")
    (tmp_path / "m" / NO_WEIGHTS).unlink()
    found = inspect(tmp_path / "m")
    shown = tree(found)
    assert found.disk is None
    assert "No weights are there yet" in shown
    assert "model.layers.{0..2}.mlp.experts.down_proj (3 tensors)  [4,64,88], outputs along axis 1" in shown
    assert found.to_dict()["weights"] is False


def test_experts_on_disk_are_one_pattern_with_dtype_shape_and_axis(tmp_path: Path) -> None:
    shown = tree(inspect(save_sample("mixtral", tmp_path / "m")))
    assert (
        "model.layers.{0..2}.block_sparse_moe.experts.{0..3}.w2.weight (12 tensors)  F32 [64,88], outputs along axis 0"
        in shown
    )
    assert "reads   post_attention_layernorm -> mlp: gate, experts" in shown


def test_norms_behind_writers_scales_images_and_tying_are_named(tmp_path: Path) -> None:
    shown = tree(inspect(save_sample("gemma3", tmp_path / "m")), 200)
    assert "self_attn.o_proj -> post_attention_layernorm (RMS norm, gain 1 + weight)   (mixes tokens)" in shown
    assert "embed_tokens -> times 8   (embedding)" in shown
    assert "multi_modal_projector   (images or sounds)" in shown
    assert "tied to the embedding" in shown


def test_biases_and_transposed_maps_have_their_axes(tmp_path: Path) -> None:
    shown = tree(inspect(save_family("gpt2", tmp_path / "m")))
    assert "transformer.h.{0..2}.mlp.c_proj.weight (3 tensors)  F32 [256,64], outputs along axis 1" in shown
    assert "transformer.h.{0..2}.mlp.c_proj.bias (3 tensors)  F32 [64], bias, axis 0" in shown


def test_every_fourth_block_of_another_kind_takes_two_branches(tmp_path: Path) -> None:
    kinds = ["linear_attention"] * 3 + ["full_attention"]
    shown = tree(inspect(save_sample("qwen3_next", tmp_path / "m", num_hidden_layers=16, layer_types=kinds * 4)))
    assert shown.count("model.layers 0-2, 4-6, 8-10, 12-14 (12 blocks)") == 1
    assert shown.count("model.layers 3, 7, ..., 15 (4 blocks, every 4th)") == 1
    assert len(shown.splitlines()) < 40


def test_two_norms_and_a_factor_for_each_block_leave_one_branch(tmp_path: Path) -> None:
    narrow_model(sample("gemma4_text", "moe")).save_pretrained(tmp_path)
    shown = tree(inspect(tmp_path))
    assert "model.layers 0-4 (5 blocks)" in shown
    norms = "post_feedforward_layernorm_2 (RMS norm, gain weight) -> post_feedforward_layernorm (RMS norm, gain weight)"
    assert f"writes  experts -> {norms} -> times a number for each block   (MLP)" in shown


def test_extra_tensors_are_grouped_and_layers_for_later_tokens_are_named(tmp_path: Path) -> None:
    folder = save_sample("deepseek_v3", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    last = {
        n.replace("layers.3.", "layers.4."): t.clone() for n, t in tensors.items() if n.startswith("model.layers.3.")
    }
    more = {f"model.layers.4.{name}.weight": torch.zeros(64) for name in ("enorm", "hnorm", "shared_head.norm")}
    more["model.layers.4.eh_proj.weight"] = torch.zeros(64, 128)
    old = {f"old.{i}.buffer": torch.zeros(1) for i in range(5)}
    save_file({**tensors, **last, **more, **old}, folder / "model.safetensors", metadata={"format": "pt"})
    found = inspect(folder)
    shown = tree(found)
    count = len(last) + len(more)
    assert f"{count + 5} more tensors on disk, kept byte for byte" in shown
    assert f"model.layers.4.*: {count} tensors: multi-token prediction, which transformers does not load" in shown
    assert "old.{0..4}.buffer: 5 tensors" in shown
    # The projection, the attention's output, four experts and the shared one.
    assert "7 tensors of multi-token prediction write; --mtp edit edits them too" in shown
    assert sum(group["count"] for group in found.to_dict()["extra_patterns"]) == count + 5
    assert {"tensor": "model.layers.4.eh_proj.weight", "axis": 0} in found.to_dict()["mtp_writers"]


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    shown = tree(inspect(save_sample("deepseek_v3", tmp_path / "m")), width)
    assert max(map(len, shown.splitlines())) <= width


def test_json_has_what_the_tree_has(tmp_path: Path) -> None:
    found = json.loads(json.dumps(inspect(save_sample("mixtral", tmp_path / "m")).to_dict()))
    edited = found["edited"]["model.layers.0.mlp.experts.down_proj"]
    assert [entry["tensor"] for entry in edited] == [
        f"model.layers.0.block_sparse_moe.experts.{e}.w2.weight" for e in range(4)
    ]
    assert {entry["axis"] for entry in edited} == {0}
    assert found["weights"] is True
    assert found["anatomy"]["unknown"] == []


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["weight-edit", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_what_is_not_understood_is_one_line_that_names_the_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sample("openai-gpt").save_pretrained(tmp_path)
    assert run(monkeypatch, "inspect", tmp_path, "--quiet") == 3
    said = capsys.readouterr().err.strip()
    assert "'transformer.h.0.ln_2'" in said
    assert len(said.splitlines()) == 1


def test_a_format_that_is_not_edited_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = save_family("llama", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "aqlm"}}))
    assert run(monkeypatch, "inspect", folder) == 3
    assert "AQLM" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "name a MODEL"),
        (("organism", "--all"), "neither MODEL nor --prove"),
        (("organism", "--only", "llama"), "go with --all"),
        (("--all", "--only", "no-such-type"), "no model type of transformers for text 'no-such-type'"),
        (("--all", "--only", "llama", "--page", "x.md"), "the page is about all families"),
        (("--all", "--page", "nowhere/x.md"), "there is no folder nowhere"),
    ],
)
def test_options_that_do_not_belong_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert run(monkeypatch, "inspect", *arguments) == 2
    assert said in capsys.readouterr().err


def test_prove_measures_several_rounds_through_the_disk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    save_sample("gemma3", tmp_path / "m")
    # It needs no weights.
    shutil.copytree(tmp_path / "m", tmp_path / "c", ignore=shutil.ignore_patterns("*.safetensors"))
    assert run(monkeypatch, "inspect", tmp_path / "c", "--prove", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["passed"] is True
    assert [measured["directions"] for measured in found["rounds"]] == [1, 2, 5]
    assert len({measured["seed"] for measured in found["rounds"]}) == 3
    for measured in found["rounds"]:
        assert measured["inputs"] == ["text", "images"]
        assert measured["leak"] < 1e-5 < 0.1 < measured["leak_before"]
        assert measured["logit_difference"] < 1e-4


def test_prove_takes_a_model_of_full_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    LlamaConfig(num_hidden_layers=2, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    assert run(monkeypatch, "inspect", tmp_path, "--prove") == 0
    captured = capsys.readouterr()
    assert "a narrow random copy of 2 blocks" in captured.out
    assert "5 directions, seed 2" in captured.err


def test_prove_takes_nothing_from_the_cache_and_fails_with_exit_code_4(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = save_family("llama", tmp_path / "m")
    cache = tmp_path / "cache"
    monkeypatch.setenv("WEIGHT_EDIT_CACHE", str(cache))
    monkeypatch.setattr("weight_edit.inspection.catalogue.disk_trial.MAX_LEAK", 1e-12)
    assert run(monkeypatch, "inspect", folder, "--prove") == 4
    assert "Not proven" in capsys.readouterr().out
    assert not cache.exists()
