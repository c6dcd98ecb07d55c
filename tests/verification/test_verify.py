"""Verification passes what bake wrote, and names whatever was changed behind its back."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.families import save_family
from tests.helpers.small_tokenizer import word_tokenizer
from tests.helpers.verification_samples import PROMPTS, resign, rows
from weight_edit.baking.bake import bake
from weight_edit.errors import UsageError, VerificationError
from weight_edit.verification import verify as verifying
from weight_edit.verification.verify import verify


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base` and its edit `out`."""
    folder = tmp_path_factory.mktemp("verify")
    save_family("llama", folder / "base")
    word_tokenizer().save_pretrained(folder / "base")
    (folder / "base/README.md").write_text("---\nlicense: mit\n---\n# Base\n", encoding="utf-8")
    bake(folder / "base", rows(), folder / "out")
    return folder


def test_an_honest_edit_passes_every_check(baked: Path) -> None:
    checked = verify(baked / "base", baked / "out", prompts=PROMPTS)
    assert checked.problems == ()
    assert checked.passed
    assert checked.integrity.ok
    assert checked.leak < 1e-5 < 0.05 < checked.precisions["float32"].leak_before.worst
    assert checked.logit_difference < 1e-4
    assert checked.weights.left < 1e-5
    assert checked.weights.compared == 7
    assert json.loads(json.dumps(checked.to_dict()))["integrity"] is True


@pytest.mark.parametrize("family", ["gemma2", "gpt2", "llama-tied"])
@pytest.mark.parametrize("mode", ["both", "untie", "skip"])
def test_tied_embeddings_in_all_three_modes(family: str, mode: str, tmp_path: Path) -> None:
    save_family(family, tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    bake(tmp_path / "base", rows(), tmp_path / "out", embeddings=mode)
    checked = verify(tmp_path / "base", tmp_path / "out", prompts=PROMPTS)
    assert checked.passed, checked.problems
    assert checked.complete == (mode != "skip")
    tying = checked.precisions["float32"].tying
    assert (tying is not None) == (mode == "both")
    if tying is not None:
        assert tying.largest > 1e-3, "the cost of editing a tied unembedding is reported"


def test_bfloat16_is_held_to_what_rounding_leaves(tmp_path: Path) -> None:
    save_family("llama", tmp_path / "base", dtype=torch.bfloat16)
    word_tokenizer().save_pretrained(tmp_path / "base")
    bake(tmp_path / "base", rows(), tmp_path / "out")
    checked = verify(tmp_path / "base", tmp_path / "out", prompts=PROMPTS)
    assert checked.passed, checked.problems
    assert set(checked.precisions) == {"float32", "bfloat16"}


def edit_tensor(folder: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})


OUTPUT = "model.layers.1.self_attn.o_proj.weight"
TAMPERINGS = {
    "an untouched tensor": lambda f: edit_tensor(f, "model.layers.0.mlp.up_proj.weight", lambda t: t + 1e-6),
    "an edited tensor put back": lambda f: edit_tensor(
        f, OUTPUT, lambda t: load_file(f.parent / "base/model.safetensors")[OUTPUT]
    ),
    "an edited tensor changed elsewhere": lambda f: edit_tensor(f, OUTPUT, lambda t: t * 1.001),
    "not a number": lambda f: edit_tensor(f, OUTPUT, lambda t: t * float("nan")),
    "a tokenizer file": lambda f: (f / "tokenizer_config.json").write_text("{}", encoding="utf-8"),
    "a missing file": lambda f: (f / "generation_config.json").unlink(),
    "a new file": lambda f: (f / "extra.py").write_text("print()", encoding="utf-8"),
    "the base's card": lambda f: (f / "BASE_README.md").write_text("changed", encoding="utf-8"),
}


# A manifest cannot be made to fit a file that is not there.
SIGNABLE = [what for what in TAMPERINGS if what != "a missing file"]


@pytest.mark.parametrize(
    ("what", "signed"), [*((what, False) for what in TAMPERINGS), *((what, True) for what in SIGNABLE)]
)
def test_tampering_is_named(baked: Path, what: str, signed: bool, tmp_path: Path) -> None:
    shutil.copytree(baked / "base", tmp_path / "base")
    shutil.copytree(baked / "out", tmp_path / "out")
    TAMPERINGS[what](tmp_path / "out")
    if signed:
        resign(tmp_path / "out")
    checked = verify(tmp_path / "base", tmp_path / "out", prompts=PROMPTS)
    assert not checked.passed


@pytest.mark.parametrize("what", SIGNABLE)
def test_the_files_alone_show_it_too(baked: Path, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model is loaded, and the manifest's digests were made to fit."""
    monkeypatch.setattr("weight_edit.verification.model_checks.load", None)
    assert verify(baked / "base", baked / "out", weights_only=True).passed
    shutil.copytree(baked / "base", tmp_path / "base")
    shutil.copytree(baked / "out", tmp_path / "out")
    TAMPERINGS[what](tmp_path / "out")
    resign(tmp_path / "out")
    checked = verify(tmp_path / "base", tmp_path / "out", weights_only=True)
    assert checked.weights_only
    assert checked.leak is None
    assert checked.problems


def test_a_damaged_shard_is_a_failed_verification(baked: Path, tmp_path: Path) -> None:
    shutil.copytree(baked / "out", tmp_path / "out")
    data = (tmp_path / "out/model.safetensors").read_bytes()
    (tmp_path / "out/model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(VerificationError, match=r"model\.safetensors"):
        verify(baked / "base", tmp_path / "out", prompts=PROMPTS)


def test_a_model_that_cannot_be_loaded_is_a_failed_verification(baked: Path, tmp_path: Path) -> None:
    shutil.copytree(baked / "out", tmp_path / "out")
    (tmp_path / "out/config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(VerificationError, match="cannot be loaded"):
        verify(baked / "base", tmp_path / "out", prompts=PROMPTS)


def test_an_unedited_copy_fails(baked: Path, tmp_path: Path) -> None:
    shutil.copytree(baked / "base", tmp_path / "copy")
    checked = verify(baked / "base", tmp_path / "copy", directions=rows(), prompts=PROMPTS)
    assert any("lies along the directions" in problem for problem in checked.problems)
    assert any("differs from the edit" in problem for problem in checked.problems)


def test_other_directions_than_those_baked_are_noticed(baked: Path) -> None:
    checked = verify(baked / "base", baked / "out", directions=rows(seed=9), prompts=PROMPTS)
    assert any(problem.startswith("directions:") for problem in checked.problems)


def test_without_manifest_or_directions_it_asks_for_them(baked: Path, tmp_path: Path) -> None:
    shutil.copytree(baked / "base", tmp_path / "other")
    with pytest.raises(UsageError, match="say with `directions`"):
        verify(baked / "base", tmp_path / "other", prompts=PROMPTS)


def test_prompts_that_are_not_there_are_said_before_anything_is_compared(
    baked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "check_integrity", lambda *args, **kwargs: pytest.fail("files were compared"))
    with pytest.raises(UsageError, match=r"missing\.txt"):
        verify(baked / "base", baked / "out", prompts="missing.txt")
    with pytest.raises(UsageError, match="0"):
        verify(baked / "base", baked / "out", prompts=PROMPTS, limit=0)


def test_a_foreign_edit_is_verified_by_its_directions(baked: Path, tmp_path: Path) -> None:
    """An edit by another tool, in place and without a manifest."""
    shutil.copytree(baked / "out", tmp_path / "out")
    for name in ("weight_edit.json", "BASE_README.md"):
        (tmp_path / "out" / name).unlink()
    shutil.copy(baked / "base/README.md", tmp_path / "out/README.md")
    assert verify(baked / "base", tmp_path / "out", directions=rows(), prompts=PROMPTS).passed
