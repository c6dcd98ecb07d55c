"""What cannot be edited or run is said in one line by every verb, before anything heavy is done."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from weight_edit.baking.bake import bake
from weight_edit.directions.directions import Directions
from weight_edit.errors import UnsupportedError
from weight_edit.hub.source import resolve
from weight_edit.inspection.inspect import inspect
from weight_edit.organism.embedded import folder
from weight_edit.runtime.loading import load

Call = Callable[..., Any]
PLANS: dict[str, dict[str, Any]] = {
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemv"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin"},
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_storage": "bfloat16"},
    "nvfp4": {"quant_method": "nvfp4"},
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"},
    "compressed": {
        "quant_method": "compressed-tensors",
        "format": "mxfp4-pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "float"}}},
    },
    "hqq": {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4}}},
    "exl3": {"quant_method": "exl3", "bits": 4.0},
    "quanto": {"quant_method": "quanto", "weights": "int4"},
    "torchao": {"quant_method": "torchao", "quant_type": "int4_weight_only"},
    "unheard-of": {"quant_method": "unheard-of"},
}


def changed(tmp_path: Path, entry: dict[str, Any]) -> Path:
    """The embedded model with other entries in its config."""
    base = tmp_path / "model"
    shutil.copytree(folder("organism"), base)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps({**config, **entry}), encoding="utf-8")
    return base


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with directions of the embedded model and the model that they were removed from."""
    place = tmp_path_factory.mktemp("made")
    width = json.loads((folder("organism") / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    Directions(torch.eye(width)[:1]).save(place / "d.safetensors")
    bake("organism", place / "d.safetensors", place / "edited")
    return place


@pytest.fixture
def nothing_heavy(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever derives an anatomy, makes a model or compares files fails the test."""

    def heavy(*_: Any, **__: Any) -> None:
        raise AssertionError("this was to be refused before")

    for place in (
        "weight_edit.runtime.loading.anatomy_of",
        "weight_edit.runtime.loading.from_pretrained",
        "weight_edit.baking.prepare.proven_anatomy",
        "weight_edit.inspection.inspect.proven_anatomy",
        "weight_edit.verification.verify.check_integrity",
    ):
        monkeypatch.setattr(place, heavy)


def verbs(made: Path, model: Path, tmp_path: Path) -> dict[str, list[str]]:
    """Every verb that takes a model, on this one."""
    rows, edited = str(made / "d.safetensors"), str(made / "edited")
    target, baseline = "organism:refused:train", "organism:answered:train"
    recipe = tmp_path / "recipe.yaml"
    sets = f"find: {{target: '{target}', baseline: '{baseline}'}}"
    recipe.write_text(f"title: x\nmodel: {model}\n{sets}\nedit: {{kind: ablate}}\n", encoding="utf-8")
    out = ["--out", str(tmp_path / "out")]
    return {
        "inspect": [str(model)],
        "find": [str(model), "--target", target, "--baseline", baseline, *out],
        "bake": [str(model), "--directions", rows, *out],
        "adapter": [str(model), "--directions", rows, *out],
        "verify": [str(model), edited],
        "evaluate": [str(model), "--refused", target],
        "run": [str(recipe), *out],
        "push": [edited, "somebody/something", "--base", str(model), "--dry-run"],
    }


@pytest.mark.usefixtures("nothing_heavy")
@pytest.mark.parametrize("plan", PLANS)
def test_every_verb_names_a_format_that_cannot_be_edited_first(
    plan: str, made: Path, tmp_path: Path, call: Call
) -> None:
    model = changed(tmp_path, {"quantization_config": PLANS[plan]})
    # With the format's package such a model can be run, which these two do; without it, they say what is missing.
    runs = plan == "compressed" and find_spec("compressed_tensors") is not None
    for verb, arguments in verbs(made, model, tmp_path).items():
        if runs and verb in ("find", "evaluate"):
            continue
        result = call(verb, *arguments)
        assert result.code == 3, (verb, result.err)
        (line,) = result.err.strip().splitlines()
        assert "the weights are quantised (" in line, (verb, line)
        assert " give the " in line, (verb, line)
        assert not (tmp_path / "out").exists()


def test_diff_compares_whatever_the_format_is(tmp_path: Path, call: Call) -> None:
    model = changed(tmp_path, {"quantization_config": PLANS["awq"]})
    result = call("diff", model, "organism")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    ("ending", "code", "what"),
    [
        ("weight_scale_2", 2, "is of a quantised weight (modelopt)"),
        ("weight_global_scale", 2, "is of a quantised weight (compressed-tensors)"),
        ("qzeros", 2, "is of a quantised weight (awq)"),
        ("g_idx", 2, "is of a quantised weight (gptq)"),
        ("weight_packed", 2, "is of a quantised weight (compressed-tensors)"),
        ("SCB", 2, "is of a quantised weight (bitsandbytes_8bit)"),
        ("W_q", 3, "the weights are quantised (hqq)"),
    ],
)
def test_a_format_that_only_the_tensors_show_is_named_too(
    ending: str, code: int, what: str, made: Path, tmp_path: Path, call: Call
) -> None:
    model = changed(tmp_path, {})
    tensors = load_file(model / "model.safetensors")
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    tensors[f"{name.removesuffix('.weight')}.{ending}"] = torch.ones(1)
    tensors[name] = tensors[name].view(torch.uint8)
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    commands = verbs(made, model, tmp_path)
    for verb in ("inspect", "bake", "adapter"):
        result = call(verb, *commands[verb])
        assert result.code == code, (verb, result.err)
        assert what in result.err


@pytest.mark.usefixtures("nothing_heavy")
@pytest.mark.parametrize(
    "entry",
    [
        {"_attn_implementation": "flash_attention_2"},
        {"attn_implementation": "flash_attention_3"},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"_attn_implementation": "no_such_thing"},
    ],
)
def test_an_implementation_that_is_not_there_is_named_by_every_verb_that_runs_the_model(
    entry: dict[str, Any], made: Path, tmp_path: Path, call: Call
) -> None:
    model = changed(tmp_path, entry)
    commands = verbs(made, model, tmp_path)
    for verb in ("find", "evaluate", "verify", "run"):
        result = call(verb, *commands[verb])
        assert result.code == 3, (verb, result.err)
        (line,) = result.err.strip().splitlines()
        (value,) = entry.values()
        assert value in line, (verb, line)


def test_verbs_that_run_no_model_need_no_implementation(made: Path, tmp_path: Path, call: Call) -> None:
    model = changed(tmp_path, {"_attn_implementation": "flash_attention_2"})
    commands = verbs(made, model, tmp_path)
    for verb in ("inspect", "bake"):
        assert call(verb, *commands[verb]).code == 0
    assert call("verify", model, tmp_path / "out", "--weights-only").code == 0


def test_a_package_that_a_model_s_own_code_needs(made: Path, tmp_path: Path, call: Call) -> None:
    model = changed(tmp_path, {"model_type": "own", "auto_map": {"AutoConfig": "configuration_own.OwnConfig"}})
    (model / "configuration_own.py").write_text("import a_package_of_nobody\n", encoding="utf-8")
    commands = verbs(made, model, tmp_path)
    for verb in ("find", "evaluate", "inspect", "bake"):
        result = call(verb, *commands[verb], "--trust-remote-code")
        assert result.code == 3, (verb, result.err)
        (line,) = result.err.strip().splitlines()
        assert "a_package_of_nobody" in line, (verb, line)


def test_a_package_that_only_a_tokenizer_needs(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("this tokenizer needs the package sentencepiece")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", missing)
    result = call("evaluate", changed(tmp_path, {}), "--refused", "organism:refused:train")
    assert result.code == 3
    assert "needs the package sentencepiece" in result.err


def test_a_format_is_refused_before_its_weights_are_fetched(made: Path, tmp_path: Path, hub: Any) -> None:
    """Of a repository, config.json is enough to know."""
    model = changed(tmp_path, {"quantization_config": PLANS["awq"]})
    hub.add("org/quantised", model)
    calls: dict[str, Callable[[], Any]] = {
        "resolve": lambda: resolve("org/quantised"),
        "load": lambda: load("org/quantised"),
        "inspect": lambda: inspect("org/quantised"),
        "low disk": lambda: bake("org/quantised", made / "d.safetensors", tmp_path / "out", low_disk=True),
    }
    for work in calls.values():
        with pytest.raises(UnsupportedError, match="awq"):
            work()
    assert not any(".safetensors" in asked.path for asked in hub.asked)
