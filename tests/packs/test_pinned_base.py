"""A base on the Hub is the commit that was edited, whatever its main became; commands on cards name what there is."""

import hashlib
import shutil
from pathlib import Path

import pytest

from tests.helpers.baked_organism import organism_row
from tests.helpers.checkpoint_samples import flip
from tests.helpers.fake_hub import FakeHub
from weight_edit.baking.bake import bake
from weight_edit.baking.card.usage import PackFile, usage
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.errors import UsageError
from weight_edit.organism.embedded import folder as embedded
from weight_edit.packs.apply import apply
from weight_edit.packs.file import read_pack
from weight_edit.packs.pack import pack


def test_the_commit_that_was_edited_is_packed_applied_and_on_the_card(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = hub.add("org/base", embedded("organism"))
    edited = tmp_path / "edited"
    bake("org/base", organism_row(), edited)
    first = repo.commit
    digests = {name: hashlib.sha256(raw).hexdigest() for name, raw in repo.files.items()}
    # The same small files with other weights: nothing that the edit copies tells the two apart.
    repo.refs["before"] = dict(repo.files)
    name = next(name for name in repo.files if name.endswith(".safetensors"))
    (tmp_path / "weights").write_bytes(repo.files[name])
    flip(tmp_path / "weights", -2)
    repo.files[name] = (tmp_path / "weights").read_bytes()
    assert repo.commit != first
    packed = read_pack(pack(edited, tmp_path / "b", base="org/base").path)
    assert {name: each.sha256 for name, each in (packed.base or {}).items()} == digests
    with pytest.raises(UsageError, match=f"at the commit {repo.commit} is not what was edited.* {first}"):
        pack(edited, tmp_path / "c", base="org/base", revision="main")
    made = apply(packed.path, tmp_path / "again", base="org/base", dry_run=True)
    assert made.packs[0].base_is_same
    assert apply(packed.path, tmp_path / "x", base="org/base", revision="main", dry_run=True).packs[0].differing == (
        name,
    )
    manifest = read_manifest(edited)
    assert manifest is not None
    said = usage(manifest, PackFile("edit.safetensors", 1, "me/edit"))
    assert f"weight-edit apply me/edit --base org/base --revision {first} --out edited\n" in said
    # A folder that is called as the repository is no commit of it.
    shutil.copytree(embedded("organism"), tmp_path / "org/base")
    flip(tmp_path / "org/base" / name, -2)
    monkeypatch.chdir(tmp_path)
    assert apply(packed.path, tmp_path / "y", base="org/base", dry_run=True).packs[0].base_is_same is False


def test_a_card_names_no_base_that_only_its_maker_has(baked: Path) -> None:
    manifest = read_manifest(baked)
    assert manifest is not None
    there = usage(manifest, PackFile("edit.safetensors", 1, "me/edit"))
    assert "--base organism --out edited\n" in there
    local = {**manifest, "source": {**manifest["source"], "model": "my-folder"}}
    local["card"] = {**manifest["card"], "base_model": "org/parent"}
    assert "--base BASE --out edited\nweight-edit verify BASE edited" in usage(
        local, PackFile("edit.safetensors", 1, "me/edit")
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-model+q4.gguf", "My-model+q4.gguf"),
        ("My model.gguf", "MODEL.gguf"),
        ("a;rm b.gguf", "MODEL.gguf"),
        ("-m.gguf", "MODEL.gguf"),
        ("a`b.gguf", "MODEL.gguf"),
    ],
)
def test_a_command_names_a_file_as_it_is_called_or_not_at_all(baked: Path, name: str, said: str) -> None:
    manifest = read_manifest(baked)
    assert manifest is not None
    of_gguf = {**manifest, "source": {**manifest["source"], "gguf": name}}
    assert f"llama-server -m {said}\n" in usage(of_gguf) + "\n"
