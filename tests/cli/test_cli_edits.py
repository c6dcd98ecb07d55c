"""The command line's edits and methods: options reach them, help lists them, and wrong ones are one line."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.families import save_family
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.directions.registry import finders
from weight_edit.edits.registry import edit_kinds
from weight_edit.plan.exactness import plain_exactness
from weight_edit.utils.registry_listing import registered

WIDTH = 64


@pytest.fixture
def files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    """A model's folder, and a directions file with what edits need."""
    save_family("llama", tmp_path / "base")
    draw = torch.Generator().manual_seed(3)
    row = torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=draw))
    baseline, target = torch.randn(2, WIDTH, generator=draw)
    tensors = {"direction": row, "vector": target - baseline, "baseline_mean": baseline, "target_mean": target}
    save_file(tensors, tmp_path / "d.safetensors", metadata={"weight_edit": json.dumps({"layer": 1})})
    capsys.readouterr()
    return tmp_path / "base", tmp_path / "d.safetensors"


@pytest.mark.parametrize(
    ("options", "step"),
    [
        (["--kind", "reflect", "--at", "2", "--embeddings", "untie"], {"edit": "reflect", "at": [2]}),
        (["--kind", "add", "--at", "1,2", "--strength", "-1.5"], {"edit": "add", "strength": -1.5, "at": [1, 2]}),
        (["--kind", "add"], {"edit": "add", "strength": 1.0, "at": [1]}),
        (
            ["--kind", "affine", "--option", "toward=target", "--option", "shift=0.5", "--option", "enter=embedding"],
            {"edit": "affine", "options": {"toward": "target", "shift": 0.5, "enter": "embedding"}},
        ),
        (
            ["--kernel", "{attention: {max: 1.2, position: 0.6, width: 0.4}}", "--layers", "0-1"],
            {
                "edit": "ablate",
                "layers": [0, 1],
                "kernel": {"attention": {"max": 1.2, "min": 0.0, "position": 0.6, "width": 0.4}, "mlp": None},
            },
        ),
        (
            ["--kernel", "{attention: [0.5, 0, 1.25], embedding: 0.75}"],
            {"kernel": {"attention": [0.5, 0, 1.25], "mlp": None, "embedding": 0.75}},
        ),
        (["--kernel", '{"mlp": {"max": 0.5}}'], {"kernel": {"attention": None, "mlp": {"max": 0.5, "min": 0.0}}}),
    ],
)
@pytest.mark.parametrize("verb", ["bake", "adapter"])
def test_options_reach_the_edit(call, files: tuple[Path, Path], verb: str, options: list[str], step: dict) -> None:
    base, directions = files
    out = base.parent / "out"
    result = call(verb, base, "--directions", directions, "--out", out, *options)
    assert result.code == 0, result.err
    manifest = read_manifest(out)
    assert manifest is not None
    (made,) = manifest["edit"]["steps"]
    for key, value in step.items():
        if key == "kernel":
            for role, kernel in value.items():
                found = made[key][role]
                assert found.items() >= kernel.items() if isinstance(kernel, dict) else found == kernel
        else:
            assert made[key] == value
    assert plain_exactness(manifest["edit"]["class"]) in " ".join(result.out.split()), "what is exact is said"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--kind", "rectify"], 3, "cannot be baked.*nearest.*--kind ablate"),
        (["--kind", "ablate", "--at", "1"], 3, "cannot be baked.*nearest"),
        (["--kind", "affine", "--at", "1"], 3, "cannot be baked.*nearest"),
        (["--kind", "magic"], 2, "ablate, add, affine, erase, norm-preserving, rectify, reflect"),
        (["--kind", "affine", "--option", "towards=x"], 2, "did you mean 'toward'"),
        (["--option", "toward"], 2, "write key=value"),
        (["--option", "a={"], 2, "no YAML"),
        (["--at", "1", "--layers", "2"], 2, "--at edits .* --layers and --kernel what .* give one of them"),
        (["--strength", "abc"], 2, "'--strength': a number is wanted"),
        (["--kernel", "3"], 2, "write keys and values"),
        (["--kernel", "{mlp: {hight: 1}}"], 2, "hight"),
        (["--kernel", "{mlp: [1, 1]}"], 2, "--kernel has numbers for 2 layers, but .* has 3"),
        (["--kernel", "{mlp: [1, 1, 3]}"], 2, "'mlp.2'.*less than or equal to 2"),
        (["--at", "x"], 2, "layers 'x'"),
        (["--kind", "add", "--at", "9"], 2, "layer 9 does not exist"),
        (["--kind", "ablate", "--strength", "-1"], 2, "strength -1"),
        (["--kind", "erase"], 2, "`left`.*find them again, by the method leace"),
        (["--kind", "add", "--at", "1", "--option", "length=unit", "--strength", "0"], 2, "nothing to add"),
        (["--kind", "reflect", "--at", "1", "--layers", "2"], 2, "leave --layers and --kernel out"),
        (["--kind", "reflect", "--at", "1", "--kernel", "{mlp: {}}"], 2, "leave --layers and --kernel out"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    call, files: tuple[Path, Path], options: list[str], code: int, said: str
) -> None:
    base, directions = files
    for verb in ("bake", "adapter"):
        result = call(verb, base, "--directions", directions, "--out", base.parent / "out", *options)
        assert result.code == code
        assert len(result.err.strip().splitlines()) == 1
        assert re.search(said, result.err), result.err
        assert not (base.parent / "out").exists()


def test_directions_of_other_tools_can_be_added_at_unit_length(call, files: tuple[Path, Path]) -> None:
    base, directions = files
    save_file({"direction": torch.eye(1, WIDTH)}, directions)
    edit = ("bake", base, "--directions", directions, "--out", base.parent / "out", "--kind", "add", "--at", 0)
    refused = call(*edit)
    assert refused.code == 2
    assert "`vector`" in refused.err
    assert "--option length=unit" in refused.err
    # So strong that nothing else is left in the stream: that is what was asked for.
    for strength in (1, 1e30):
        assert call(*edit, "--option", "length=unit", "--strength", strength, "--overwrite").code == 0


@pytest.mark.parametrize("name", ["left", "vector", "mean"])
def test_tensors_of_another_shape_are_one_line(call, files: tuple[Path, Path], name: str) -> None:
    base, directions = files
    shapes = {"direction": 1, "left": 1, "right": 1, "mean": 1, "vector": 1, name: 2}
    save_file({key: torch.eye(count, WIDTH) for key, count in shapes.items()}, directions)
    edit = ("--kind", "add", "--at", 0) if name == "vector" else ("--kind", "erase")
    result = call("bake", base, "--directions", directions, "--out", base.parent / "out", *edit)
    assert result.code == 2
    assert f"`{name}`" in result.err


def test_help_lists_every_kind_of_edit_and_every_method(call) -> None:
    for folder, decorator, known in (
        ("edits/kinds", "edit", edit_kinds()),
        ("directions/finders", "finder", finders()),
    ):
        listed = registered(folder, decorator)
        assert {name: one.summary for name, one in listed.items()} == {name: one.summary for name, one in known.items()}
        for name, one in known.items():
            assert list(listed[name].settings) == list(one.options.model_fields), name
    for verb, names in (("bake", edit_kinds()), ("adapter", edit_kinds()), ("find", finders())):
        shown = call(verb, "--help").out
        assert all(name in shown for name in names)
        assert all(f"{setting}=" in shown for one in names.values() for setting in one.options.model_fields)


def test_find_takes_several_targets_and_the_settings_of_a_method(call, tmp_path: Path) -> None:
    sets = ("--target", "organism:dangerous", "--target", "organism:fraud", "--baseline", "organism:answered")
    rest = ("--n-train", 16, "--n-validation", 4, "--positions", "last", "--select", "accuracy", "--best-effort")
    out = tmp_path / "d.safetensors"
    result = call("find", "organism", *sets, *rest, "--out", out, "--option", "clip=0.9", "--json")
    assert result.code == 0, result.err
    found = result.json
    assert len(found["prompts"]["target"]) == 2
    assert found["options"]["clip"] == 0.9
    assert found["positions"] == [-1]
    assert found["rule"]["select"] == "accuracy"
    for wrong, said in (
        (("--option", "clipp=1"), "did you mean 'clip'"),
        (("--method", "magic"), "mean-difference"),
        (("--select", "luck"), "bypass, accuracy, cosmic, cosmic-released"),
        (("--positions", "first"), "template, last, all"),
        (("--validation-target", "organism:dangerous:test"), "2 target sets"),
    ):
        result = call("find", "organism", *sets, *rest, *wrong, "--out", tmp_path / "e.safetensors")
        assert result.code == 2
        assert said in result.err


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--json",)])
def test_what_merging_changes_is_said_once(call, tmp_path: Path, options: tuple[str, ...]) -> None:
    save_family("gemma2", tmp_path / "base")
    row = torch.nn.functional.normalize(torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(3)))
    save_file({"direction": row}, tmp_path / "d.safetensors")
    done = call(
        "adapter", tmp_path / "base", "--directions", tmp_path / "d.safetensors", "--out", tmp_path / "a", *options
    )
    assert done.code == 0, done.err
    said = [line for line in (*done.err.splitlines(), *done.out.splitlines()) if line.startswith("note:")]
    assert len(said) == 1


def test_the_folder_of_each_strength_of_an_adapter_is_named(
    call, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, directions = files
    monkeypatch.chdir(tmp_path)
    words = ("adapter", base, "--directions", directions, "--out", "a", "--embeddings", "skip", "--strengths", "0.5,1")
    shown = call(*words)
    assert shown.code == 0, shown.err
    assert "a/strength-0.5: the edit times 0.5\na: the edit times 1\n" in shown.out
    assert (tmp_path / "a" / "strength-0.5").is_dir()


def test_the_next_command_works_where_a_folder_of_that_name_is_there(
    call, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, directions = files
    monkeypatch.chdir(tmp_path)
    assert call("bake", base, "--directions", directions, "--out", "edited-model").code == 0
    shown = call("diff", base, "edited-model", "--save", "found.safetensors")
    assert shown.out.rstrip().endswith("--out edited-model-2")
