"""The command line: the contract's JSON and exit codes, one-line errors, nothing left behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from tests.helpers.families import save_family
from weight_edit.cli import entry as cli
from weight_edit.organism.embedded import folder


@pytest.fixture(scope="module")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "d.safetensors"
    row = torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(0)))
    save_file({"direction": row}, path)
    return path


def test_the_contract_of_demo(call, tmp_path: Path) -> None:
    result = call("demo", "--out", tmp_path / "demo", "--json")
    assert result.code == 0, result.err
    found = result.json
    for side in ("baseline", "edited"):
        for rate in ("refusal", "over_refusal"):
            assert {"value", "low", "high"} <= set(found[side][rate])
    assert found["baseline"]["refusal"]["value"] >= 0.95
    assert found["baseline"]["over_refusal"]["value"] >= 0.95
    assert found["baseline"]["ordinary_refused"]["value"] <= 0.02
    assert found["baseline"]["answers_right"] >= 0.90
    assert found["edited"]["refusal"]["value"] <= 0.10
    assert found["edited"]["over_refusal"]["value"] <= 0.10
    assert found["edited"]["answers_right"] >= 0.85
    assert found["edited"]["helpful_recovered"] >= 0.80
    assert found["edited"]["kl"] < 0.1
    assert found["verification"]["integrity"] is True
    assert found["verification"]["leak"] < 1e-5
    assert found["verification"]["logit_difference"] < 1e-4
    assert (tmp_path / "demo/model/model.safetensors").exists()
    again = call("demo", "--out", tmp_path / "demo", "--json")
    assert again.code == 2
    assert "--overwrite" in again.err


def test_find_bake_verify_evaluate_adapter_push(call, tmp_path: Path) -> None:
    """The verbs one after the other on prompt files, as a user would."""
    from weight_edit.organism.corpus import prompt_set

    for name in ("refused", "answered"):
        lines = [request.prompt for request in prompt_set(name, "train")][:80]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    d, out = tmp_path / "d.safetensors", tmp_path / "edited"
    sets = ("--target", tmp_path / "refused.txt", "--baseline", tmp_path / "answered.txt")
    found = call("find", "organism", *sets, "--out", d, "--json")
    assert found.code == 0, found.err
    assert found.json["method"] == "mean-difference"
    assert found.json["prompts"]["target"]["sha256"]

    baked = call("bake", "organism", "--directions", d, "--out", out, "--json")
    assert baked.code == 0, baked.err
    assert len(baked.json["tensors"]) == 13
    checked = call("verify", "organism", out, "--n-prompts", 4, "--json")
    assert checked.code == 0, checked.err
    assert checked.json["passed"]
    args = ("--refused", tmp_path / "refused.txt", "--answered", "organism:answered:test", "--limit", 22)
    measured = call("evaluate", out, "--against", "organism", *args, "--json")
    assert measured.code == 0, measured.err
    assert measured.json["sets"]["refused"]["refusal"]["value"] <= 0.2
    assert measured.json["divergence"]["mean"] < 0.2
    lora = call("adapter", "organism", "--directions", d, "--out", tmp_path / "lora", "--json")
    assert lora.code == 0, lora.err
    assert lora.json["rank"] == 1
    pushed = call("push", out, "me/edited", "--dry-run", "--json")
    assert pushed.code == 0, pushed.err
    assert pushed.json["url"] is None
    assert "weight_edit.json" in pushed.json["files"]

    shard = out / "model.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    assert call("verify", "organism", out, "--n-prompts", 2).code == 4
    refused = call("push", out, "me/edited", "--dry-run")
    assert refused.code == 4
    assert "model.safetensors" in refused.err


def test_not_a_number_fails_closed_and_stays_json(call, directions: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    assert call("bake", "organism", "--directions", directions, "--out", tmp_path / "out").code == 0
    shard = tmp_path / "out/model.safetensors"
    tensors = load_file(shard)
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, shard, metadata={"format": "pt"})
    checked = call("verify", "organism", tmp_path / "out", "--n-prompts", 2, "--json")
    assert checked.code == 4
    assert checked.json["passed"] is False
    assert checked.json["leak"] is None
    shown = call("verify", "organism", tmp_path / "out", "--n-prompts", 2)
    assert shown.code == 4
    assert "Traceback" not in shown.err


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


@pytest.mark.parametrize("template", ["{{ 1/0 }}", "{{ messages + 1 }}", "{{ messages[9].content }}", "{% for %}"])
def test_a_broken_chat_template_is_one_line(call, template: str, tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "m")
    for path in (tmp_path / "m/chat_template.jinja",):
        path.write_text(template, encoding="utf-8")
    result = call("evaluate", tmp_path / "m", "--answered", "organism:answered:test", "--limit", 2)
    assert result.code == 2
    assert "chat template" in result.err
    assert len(result.err.strip().splitlines()) == 1


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
    assert call("verify", tmp_path / "a", tmp_path / "b", "--n-prompts", 2).code == 0


def test_a_partial_edit_is_not_called_complete(call, directions: Path, tmp_path: Path) -> None:
    args = ("--strength", "0.5", "--layers", "0")
    assert call("bake", "organism", "--directions", directions, "--out", tmp_path / "o", *args).code == 0
    shown = call("verify", "organism", tmp_path / "o", "--n-prompts", 2)
    assert shown.code == 0
    assert "The edit is partial" in shown.out


@pytest.mark.parametrize(
    "spoil",
    [
        {"source": []},
        {"source": None},
        {"edit": {}},
        {"edit": {"steps": {}, "embeddings": "keep"}},
        {"edit": {"steps": [], "embeddings": "keep"}},
        {"edit": {"steps": [3], "embeddings": "keep"}},
        {"step": {"edit": "magic"}},
        {"step": {"edit": []}},
        {"step": {"strength": "x"}},
        {"step": {"layers": [-1]}},
        {"step": {"layers": []}, "edit": {"embeddings": "skip"}},
        {"step": {"edit": "reflect", "at": [-1]}},
        {"step": {"kernel": 3}},
        {"step": {"options": ["x"]}},
        {"step": {"directions": []}},
        {"step": {"directions": {"shape": [1, 128], "float32": "AAAA"}}},
        {"step": {"directions": {"shape": [1, 128], "float32": "AAAA", "tensors": 1}}},
        {"failed": ["a reason"]},
    ],
)
def test_a_spoilt_manifest_is_no_traceback(call, spoil: dict, directions: Path, tmp_path: Path) -> None:
    assert call("bake", "organism", "--directions", directions, "--out", tmp_path / "o").code == 0
    path = tmp_path / "o/weight_edit.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    spoil = dict(spoil)
    if "step" in spoil:
        steps = [{**manifest["edit"]["steps"][0], **spoil.pop("step")}]
        spoil["edit"] = {**manifest["edit"], **spoil.get("edit", {}), "steps": steps}
    path.write_text(json.dumps({**manifest, **spoil}), encoding="utf-8")
    for args in (
        ("verify", "organism", tmp_path / "o", "--n-prompts", 2),
        ("push", tmp_path / "o", "a/b", "--dry-run"),
    ):
        result = call(*args)
        assert result.code in (2, 3, 4), args
        assert "Traceback" not in result.err


def test_files_are_not_replaced_unasked(call, tmp_path: Path) -> None:
    kept = tmp_path / "mine.txt"
    kept.write_text("precious\n", encoding="utf-8")
    sets = ("--target", "organism:refused", "--baseline", "organism:answered")
    assert call("find", "organism", *sets, "--out", kept).code == 2
    answered = ("--answered", "organism:answered", "--limit", 2)
    assert call("evaluate", "organism", *answered, "--answers", kept).code == 2
    assert kept.read_text(encoding="utf-8") == "precious\n"


def test_a_full_disk_is_one_line(call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("weight_edit.evaluation.evaluate.write_answers", full)
    args = ("--answered", "organism:answered", "--limit", 2, "--max-new-tokens", 2)
    result = call("evaluate", "organism", *args, "--answers", tmp_path / "a.jsonl")
    assert result.code == 2
    assert "No space left" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_wrong_usage_is_json_too_when_asked(call) -> None:
    result = call("bake", "organism", "--json")
    assert result.code == 2
    assert result.json["exit_code"] == 2


def test_tables_for_people(call, directions: Path, tmp_path: Path) -> None:
    shown = call("inspect", "organism")
    assert shown.code == 0
    assert "model.layers 0-5 (6 blocks)" in shown.out
    assert "Proven" in shown.out
    baked = call("bake", "organism", "--directions", directions, "--out", tmp_path / "out")
    assert "13 tensors edited (complete)" in " ".join(baked.out.split())
    assert "weight-edit verify organism" in " ".join(baked.out.split())
    assert "All checks passed" in call("verify", "organism", tmp_path / "out", "--n-prompts", 2).out


def test_inspect_as_json(call) -> None:
    found = call("inspect", "organism", "--json").json
    assert found["anatomy"]["d_model"] == 128
    assert len(found["anatomy"]["blocks"]) == 6
    assert found["names_on_disk"]["lm_head.weight"] == "lm_head.weight"
    assert found["proof"]["leak"] < 1e-5


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


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("inspect", "./nowhere"), 2, "no folder ./nowhere"),
        (("inspect", "{tmp}"), 2, "config.json"),
        (("evaluate", "organism"), 2, "--refused"),
        (("evaluate", "organism", "--refused", "{tmp}/none.txt"), 2, "none.txt"),
        (("evaluate", "organism", "--refused", "organism:nonsense"), 2, "nonsense"),
        (("evaluate", "organism", "--refused", "{tmp}/empty.txt"), 2, "empty.txt"),
        (("find", "organism", "--target", "{tmp}/few.txt", "--baseline", "organism:answered"), 2, "few.txt"),
        (("bake", "organism", "--directions", "{tmp}/no.safetensors", "--out", "{tmp}/o"), 2, "no.safetensors"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--layers", "0-9"), 2, "0 to 5"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--edit", "magic"), 2, "ablate"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--edit", "erase"), 2, "`left`"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--embeddings", "no"), 2, "keep, untie, skip"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--strength", "3"), 2, "strength"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}"), 2, "--overwrite"),
        (("verify", "organism", "{tmp}/nothing"), 2, "not a folder"),
        (("run", "{tmp}/none.yaml"), 2, "none.yaml"),
        (("push", "{tmp}", "me/x", "--dry-run"), 2, "weight_edit.json"),
        (("push", "{tmp}", "no id", "--dry-run"), 2, "owner/name"),
        (("frobnicate",), 2, "frobnicate"),
        (("bake", "organism", "--nonsense"), 2, "nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_an_exit_code(
    call, args: tuple[str, ...], code: int, said: str, directions: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    (tmp_path / "few.txt").write_text("one\ntwo\n", encoding="utf-8")
    result = call(*(arg.format(tmp=tmp_path, d=directions) for arg in args))
    assert result.code == code
    assert said in result.err
    assert "Traceback" not in result.err
    assert not (tmp_path / "o").exists()


def test_an_unsupported_architecture_is_exit_3(call, directions: Path, tmp_path: Path) -> None:
    config = AutoConfig.for_model("minimax", num_hidden_layers=2, layer_types=["linear_attention", "full_attention"])
    config.architectures = ["MiniMaxForCausalLM"]
    config.save_pretrained(tmp_path / "m")
    save_file({"x": torch.zeros(1)}, tmp_path / "m/model.safetensors")
    result = call("bake", tmp_path / "m", "--directions", directions, "--out", tmp_path / "o")
    assert result.code == 3
    assert "model.layers.0.post_attention_layernorm" in result.err
    assert not (tmp_path / "o").exists()


def test_an_unknown_model_type_is_exit_3(call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "never-heard-of"}', encoding="utf-8")
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    result = call("inspect", tmp_path)
    assert result.code == 3
    assert "model_type" in result.err


def test_remote_code_is_not_run_unasked(call, directions: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    model = tmp_path / "m"
    model.mkdir()
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (model / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}), encoding="utf-8")
    (model / "evil.py").write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    save_file({"x": torch.zeros(1)}, model / "model.safetensors")
    for args in (("inspect", model), ("bake", model, "--directions", directions, "--out", tmp_path / "o")):
        result = call(*args)
        assert result.code == 3
        assert "--trust-remote-code" in result.err
    assert not mark.exists()


def test_offline_is_said(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = call("inspect", "some-org/some-model-that-is-not-cached")
    assert result.code == 2
    assert "some-org/some-model-that-is-not-cached" in result.err
    assert len(result.err.strip().splitlines()) == 1


def test_a_model_without_chat_template_says_what_to_do(call, tmp_path: Path) -> None:
    from tests.helpers.small_tokenizer import word_tokenizer

    save_family("gpt2", tmp_path / "m")
    tokenizer = word_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "m")
    args = ("evaluate", tmp_path / "m", "--answered", "organism:answered", "--limit", 2, "--max-new-tokens", 4)
    result = call(*args)
    assert result.code == 2
    assert "plain" in result.err
    assert call(*args, "--template", "plain").code == 0


def test_errors_are_json_too_when_asked(call) -> None:
    result = call("inspect", "./nowhere", "--json")
    assert result.code == 2
    assert result.json["exit_code"] == 2
    assert "nowhere" in result.json["error"]


def test_ctrl_c_is_one_line(call, directions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weight_edit.baking.bake.write_checkpoint", interrupt)
    result = call("bake", "organism", "--directions", directions, "--out", tmp_path / "o")
    assert result.code == 130
    assert "interrupted" in result.err
    assert not list(tmp_path.iterdir())


def test_every_verb_explains_itself_with_an_example(call) -> None:
    verbs = [command.callback.__name__ for command in cli.app.registered_commands if command.callback]
    assert {"demo", "run", "inspect", "find", "bake", "verify", "evaluate", "diff", "adapter", "push"} == set(verbs)
    for verb in verbs:
        shown = call(verb, "--help")
        assert shown.code == 0
        assert f"weight-edit {verb}" in " ".join(shown.out.split())
        assert "--json" in shown.out


def test_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'numpy', 'pydantic', 'peft'}"
    code = (
        f"import sys, weight_edit.cli.entry; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weight_edit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0.1.0"


def test_the_embedded_model_is_small() -> None:
    assert sum(path.stat().st_size for path in folder().rglob("*") if path.is_file()) <= 8_000_000


def test_diff_tells_what_a_model_was_edited_with(call, directions: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "found.safetensors"
    assert call("bake", "organism", "--directions", directions, "--out", out, "--strength", "0.5").code == 0
    found = call("diff", "organism", out, "--save", file, "--json")
    assert found.code == 0, found.err
    assert found.json["strength"] == pytest.approx(0.5, abs=1e-3)
    assert len(found.json["shared_directions"]) == 1
    assert call("bake", "organism", "--directions", file, "--out", tmp_path / "again").code == 0
    again = call("diff", "organism", out, "--save", file)
    assert again.code == 2
    assert "--overwrite" in again.err
    tables = call("diff", "organism", out, "--exit-code")
    assert tables.code == 4
    assert "44 the same, 13 differ" in tables.out
    assert "0-5" in tables.out
    assert "down_proj" in tables.out
    every = call("diff", "organism", out, "--all").out
    assert every.count("1.000") > tables.out.count("1.000")


def test_diff_of_equals_has_nothing_to_save(call, tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "copy")
    same = call("diff", "organism", tmp_path / "copy", "--exit-code")
    assert same.code == 0
    assert "No difference" in same.out
    none = call("diff", "organism", tmp_path / "copy", "--save", tmp_path / "none.safetensors")
    assert none.code == 2
    assert "share no direction" in none.err
    assert not (tmp_path / "none.safetensors").exists()


def test_verify_of_the_files_alone(call, directions: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("bake", "organism", "--directions", directions, "--out", out).code == 0
    found = call("verify", "organism", out, "--weights-only", "--json")
    assert found.code == 0, found.err
    assert found.json["weights_only"] is True
    assert found.json["leak"] is None
    assert found.json["edited_tensors"]["compared"] == 13
    tables = call("verify", "organism", out, "--weights-only")
    assert "no model was run" in tables.out
    assert "the models were not run" in tables.out
    both = call("verify", "organism", out, "--weights-only", "--prompts", "organism:answered")
    assert both.code == 2
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-1] ^= 0x40
    (out / "model.safetensors").write_bytes(data)
    failed = call("verify", "organism", out, "--weights-only", "--json")
    assert failed.code == 4
    assert any("model.safetensors" in problem for problem in failed.json["problems"])
