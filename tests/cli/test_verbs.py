"""What holds for several verbs: the job from find to push, mistakes in one line, errors as JSON, light imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from weight_edit.cli import entry as cli
from weight_edit.version import __version__


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
    assert "| paper of the directions | [arXiv 2406.11717]" in (out / "README.md").read_text("utf-8")
    checked = call("verify", "organism", out, "--limit", 4, "--json")
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
    assert call("verify", "organism", out, "--limit", 2).code == 4
    refused = call("push", out, "me/edited", "--dry-run")
    assert refused.code == 4
    assert "model.safetensors" in refused.err


def test_files_are_not_replaced_unasked(call, tmp_path: Path) -> None:
    kept = tmp_path / "mine.txt"
    kept.write_text("precious\n", encoding="utf-8")
    sets = ("--target", "organism:refused", "--baseline", "organism:answered")
    assert call("find", "organism", *sets, "--out", kept).code == 2
    answered = ("--answered", "organism:answered", "--limit", 2)
    assert call("evaluate", "organism", *answered, "--answers", kept).code == 2
    assert kept.read_text(encoding="utf-8") == "precious\n"


def test_wrong_usage_is_json_too_when_asked(call) -> None:
    result = call("bake", "organism", "--json")
    assert result.code == 2
    assert result.json["exit_code"] == 2


def test_tables_for_people(call, directions: Path, tmp_path: Path) -> None:
    shown = call("inspect", "organism")
    assert shown.code == 0
    assert "model.layers 0-5 (6 blocks)" in shown.out
    assert "It can be edited, which is proven" in shown.out
    baked = call("bake", "organism", "--directions", directions, "--out", tmp_path / "out")
    assert "13 tensors edited (complete: nothing is written along the directions any more)" in " ".join(
        baked.out.split()
    )
    assert "weight-edit verify organism" in " ".join(baked.out.split())
    assert "All checks passed" in call("verify", "organism", tmp_path / "out", "--limit", 2).out


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
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--kind", "magic"), 2, "ablate"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--kind", "erase"), 2, "`left`"),
        (("bake", "organism", "--directions", "{d}", "--out", "{tmp}/o", "--embeddings", "no"), 2, "both, untie, skip"),
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


def test_errors_are_json_too_when_asked(call) -> None:
    result = call("inspect", "./nowhere", "--json")
    assert result.code == 2
    assert result.json["exit_code"] == 2
    assert "nowhere" in result.json["error"]


def test_a_value_that_reads_json_is_no_wish_for_a_document(call) -> None:
    refused = call("inspect", "./nowhere", "--revision", "--json")
    assert refused.code == 2
    assert refused.out == ""
    assert "nowhere" in refused.err


@pytest.mark.parametrize(
    ("error", "one_line"),
    [
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("the threads of this tensor are tangled"), False),
        (MemoryError(), True),
        (RecursionError("maximum recursion depth exceeded"), True),
    ],
)
def test_a_system_that_is_out_of_something_is_one_line_and_a_mistake_of_ours_a_traceback(
    call, error: Exception, one_line: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("weight_edit.inspection.inspect.inspect", fail)
    if one_line:
        result = call("inspect", "organism")
        assert result.code == 2
        assert type(error).__name__ in result.err
    else:
        with pytest.raises(RuntimeError, match="tangled"):
            call("inspect", "organism")


def test_every_verb_explains_itself_with_an_example(call) -> None:
    verbs = [command.callback.__name__ for command in cli.app.registered_commands if command.callback]
    assert len(verbs) == 20
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


def test_the_registries_sources_are_not_read_before_they_are_asked_for() -> None:
    code = (
        "import sys, weight_edit.utils.registry_listing as listing\n"
        "def read(*_): raise AssertionError('read')\n"
        "listing.ast.parse = read\n"
        "from weight_edit.cli import main\n"
        "sys.argv = ['weight-edit', '--help']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "verify" in done.stdout


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "weight_edit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == __version__
