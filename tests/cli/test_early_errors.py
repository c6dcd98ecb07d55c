"""What is wrong with a call is said before torch is imported, and a missing template before the weights are read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tests.helpers.random_models import random_model
from tests.helpers.small_tokenizer import SWITCHED, word_tokenizer
from weight_edit.directions.names import check_method
from weight_edit.directions.registry import finder_named, finders
from weight_edit.errors import UsageError
from weight_edit.utils.registry_listing import registered

FIND = ("find", "organism", "--target", "organism:refused", "--baseline", "organism:answered", "--out", "d.safetensors")
RUN = """
import sys
from weight_edit.cli import main
sys.argv = ["weight-edit", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    print("exit", stop.code, "torch" in sys.modules, "transformers" in sys.modules)
"""

CALLS = {
    "method": ((*FIND, "--method", "mean-diff"), 2, "there is no method 'mean-diff'"),
    "positions": ((*FIND, "--positions", "lst"), 2, "positions 'lst'"),
    "select": ((*FIND, "--select", "bypas"), 2, "bypas"),
    "bound": ((*FIND, "--max-kl", "-1"), 2, "max_kl"),
    "dtype": ((*FIND, "--dtype", "bf16"), 2, "bf16"),
    "target": (("find", "organism", "--target", "no.txt", "--baseline", "organism:answered"), 2, "no.txt"),
    "variable": ((*FIND, "--template-arg", "thinking"), 2, "write key=value"),
    "too few": (("find", "organism", "--target", "few.txt", "--baseline", "organism:answered"), 2, "are too few"),
    "the same": (
        ("find", "organism", *("--target", "organism:refused", "--baseline", "organism:refused")),
        2,
        "differ",
    ),
    "there is one": ((*FIND[:-1], "few.txt"), 2, "few.txt exists"),
    "no set": (
        ("find", "organism", "--target", "organism", "--baseline", "organism:answered"),
        2,
        "name a set",
    ),
    "a folder": (("bake", "organism", "--directions", ".", "--out", "x"), 2, "is a folder, not a regular file"),
    "evaluated": (("evaluate", "organism", "--refused", "no.csv"), 2, "no.csv"),
    "nothing": (("evaluate", "organism"), 2, "nothing to evaluate on; give at least one of --refused"),
    "a benchmark's option": (
        ("evaluate", "organism", "--refused", "organism:refused", "--harness-limit", "2"),
        2,
        "--harness-limit does nothing without --harness",
    ),
    "an option of prompts": (
        ("evaluate", "organism", "--harness", "piqa", "--lm-eval-json", "f.json"),
        2,
        "--lm-eval-json does nothing without --refused",
    ),
    "benchmarks in vllm": (
        ("evaluate", "organism", "--harness", "piqa", "--backend", "vllm"),
        2,
        "--harness runs models that transformers loads; leave --backend vllm out",
    ),
    "edited": (("verify", "organism", "nodir"), 2, "nodir is not a folder"),
    "adapter's place": (("adapter", "organism", "--directions", "d.safetensors", "--out", "full"), 2, "is not empty"),
    "run's place": (("run", "recipe.yaml", "--out", "full"), 2, "is not empty"),
    "demo's place": (("demo", "--out", "full"), 2, "is not empty"),
    "demo to resume": (("demo", "--out", "none", "--resume"), 2, "holds no run to resume"),
    "demo to go on with": (
        ("demo", "--out", "begun"),
        2,
        "holds a run that is not finished: go on with --resume, which",
    ),
    "run to resume": (("run", "recipe.yaml", "--out", "none", "--resume"), 2, "holds no run to resume"),
    "model's name": (("evaluate", "./no-model", "--refused", "organism:refused"), 2, "there is no folder ./no-model"),
    "base's name": (
        ("evaluate", "organism", "--against", "./no-model", "--refused", "organism:refused"),
        2,
        "there is no folder ./no-model",
    ),
    "recipe's model": (
        ("run", "som", "--model", "./no-model", "--out", "x"),
        2,
        "there is no folder ./no-model",
    ),
    "recipe's folder": (("run", "recipe.yaml", "--set", "model=./full", "--out", "x"), 2, "full has no config.json"),
    "planned model's name": (("plan", "./no-model"), 2, "there is no folder ./no-model"),
    "planned prompts": (("plan", "organism", "--target", "no.txt"), 2, "no.txt"),
    "chat's model": (("chat", "./no-model"), 2, "there is no folder ./no-model"),
    "chat's base": (("chat", "organism", "--against", "./no-model"), 2, "there is no folder ./no-model"),
    "chat's directions": (
        ("chat", "organism", "--directions", "no.sft"),
        2,
        "no directions file no.sft",
    ),
    "searched model's name": (("find", "./no-model", *FIND[2:]), 2, "there is no folder ./no-model"),
    "width": (("bake", "organism", "--directions", "d.safetensors", "--out", "x"), 2, "96 wide, but"),
    "verified": (("verify", "organism", ".", "--prompts", "no.txt"), 2, "no.txt"),
    "kind": (("adapter", "organism", "--directions", "d.safetensors", "--out", "x", "--kind", "ablat"), 2, "'ablat'"),
    "layers": (("adapter", "organism", "--directions", "d.safetensors", "--out", "x", "--layers", "3-x"), 2, "3-x"),
    "baked": (("bake", "organism", "--directions", "d.safetensors", "--out", "x", "--layers", "9-1"), 2, "9-1"),
    "strength": (("adapter", "organism", "--directions", "d.safetensors", "--out", "x", "--strength", "3"), 2, "3.0"),
    "recipe's method": (("run", "recipe.yaml", "--set", "find.method=men"), 2, "there is no method 'men'"),
    "recipe's prompts": (("run", "recipe.yaml", "--set", "evaluate.refused=no.txt"), 2, "no.txt"),
    "recipe's set": (("run", "recipe.yaml", "--set", "find.target=organism:refusd"), 2, "refusd"),
    "recipe's public set": (("run", "recipe.yaml", "--set", "find.target=advbnech"), 2, "did you mean 'advbench'"),
    "recipe's part": (("run", "recipe.yaml", "--set", "find.target=xstest:saef"), 2, "did you mean 'safe'"),
    "public set": (("evaluate", "organism", "--refused", "advbnech"), 2, "did you mean 'advbench'"),
    "public part": (("evaluate", "organism", "--refused", "jailbreakbench:bening"), 2, "did you mean 'benign'"),
    "another's prompts": (
        ("run", "languages", "--model", "org/name"),
        2,
        "--set studies.0.options.sets.other verbs=...), or give the model as --set model=org/name, which",
    ),
    "two models": (("run", "som", "--model", "org/a", "--set", "model=org/b"), 2, "leave --set model= out"),
    "thinking": (
        ("evaluate", "organism", "--refused", "organism:refused", "--thinking", "of"),
        2,
        "did you mean 'off'",
    ),
    "recipe's thinking": (("run", "recipe.yaml", "--set", "thinking=maybe"), 2, "'thinking': there is no such value"),
    "recipe's edit": (("run", "recipe.yaml", "--set", "edit.kind=ablat"), 2, "ablat"),
    "recipe's variables": (("run", "recipe.yaml", "--set", "template_args.x=[1]"), 2, "template_args.x"),
}


@pytest.mark.parametrize("name", CALLS)
def test_typos_are_said_before_torch_is_imported(tmp_path, name):
    arguments, code, said = CALLS[name]
    (tmp_path / "recipe.yaml").write_text(
        "model: organism\nfind: {target: 'organism:refused', baseline: 'organism:answered'}\n"
    )
    (tmp_path / "few.txt").write_text("one\ntwo\n")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.json").write_text('{"steps": {}, "status": "interrupted"}')
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("")
    if "d.safetensors" in arguments and arguments[0] != "find":
        import numpy as np

        row = np.zeros((1, 96), dtype=np.float32)
        row[0, 0] = 1
        save_file({"direction": row}, tmp_path / "d.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert said in done.stderr
    assert done.stdout.splitlines()[-1] == f"exit {code} False False"


def test_methods_are_known_without_importing_them():
    assert list(registered("directions/finders", "finder")) == list(finders())
    check_method("mean-difference")


@pytest.fixture
def no_weights(tmp_path):
    """A model whose weights cannot be read: whoever gets that far says so."""
    model = random_model("llama")
    model.model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"no weights")
    return tmp_path / "m"


def test_a_missing_template_is_said_before_the_weights_are_read(call, no_weights, tmp_path):
    word_tokenizer(None).save_pretrained(no_weights)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: {no_weights}\nfind: {{target: 'organism:refused', baseline: 'organism:answered'}}\n")
    for arguments in (
        (
            "find",
            no_weights,
            "--target",
            "organism:refused",
            "--baseline",
            "organism:answered",
            "--out",
            tmp_path / "d",
        ),
        ("evaluate", no_weights, "--refused", "organism:refused"),
        ("run", recipe, "--out", tmp_path / "run"),
    ):
        result = call(*arguments)
        assert result.code == 2
        # A recipe has no such flag.
        plain = "`template='plain'`" if arguments[0] == "run" else "--template plain"
        assert f"has no chat template; pass {plain} to use" in result.err
        assert "Traceback" not in result.err
    assert (
        "cannot be loaded" in call("evaluate", no_weights, "--refused", "organism:refused", "--template", "plain").err
    )


def test_a_variable_that_the_template_does_not_read_too(call, no_weights):
    word_tokenizer(SWITCHED).save_pretrained(no_weights)
    evaluate = ("evaluate", no_weights, "--refused", "organism:refused", "--template-arg")
    wrong = call(*evaluate, "enable_thinkin=false")
    assert (wrong.code, "did you mean 'enable_thinking'?" in wrong.err) == (2, True)
    assert "cannot be loaded" in call(*evaluate, "enable_thinking=false").err


def test_a_method_of_ones_own_is_the_registrys_to_know():
    # The registry is imported in this process, where others than the package's may be registered.
    check_method("men")
    with pytest.raises(UsageError, match="there is no method 'men'"):
        finder_named("men")
