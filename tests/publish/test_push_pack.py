"""An edit published alone: a pack and a card, from which whoever has the base makes the checkpoint again."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import metadata_load

from tests.helpers.fake_hub import FakeHub
from tests.helpers.hostile_hub import changed, each_file
from weight_edit.checkpoint import manifest
from weight_edit.errors import UsageError
from weight_edit.hub.source import resolve
from weight_edit.organism.embedded import folder as embedded
from weight_edit.packs.location import local_pack

TOKEN = FakeHub.token


def folder_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_pack_is_pushed_and_applied_from_the_hub(
    hub: FakeHub, call: Any, baked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEIGHT_EDIT_CACHE", str(tmp_path / "own-cache"))
    looked_at: list[Path] = []
    looks = manifest.changed_files
    monkeypatch.setattr(manifest, "changed_files", lambda *given: (looked_at.append(given[0]), looks(*given))[1])
    pushed = call("push", baked, "me/edit", "--pack", "--private", "--token", TOKEN, "--json").json
    assert looked_at == [baked], "every file is hashed once, whatever is made of it"
    repo = hub.repos["me/edit"]
    assert pushed["sent"] == ["README.md", "edit.safetensors"]
    assert set(repo.files) == {".gitattributes", *pushed["sent"]}
    assert len(repo.files["edit.safetensors"]) < 200_000
    (tmp_path / "README.md").write_bytes(repo.files["README.md"])
    kept = metadata_load(tmp_path / "README.md")
    assert kept is not None
    assert kept["library_name"] == "weight-edit"
    assert "edit-pack" in kept["tags"]
    card = repo.files["README.md"].decode()
    assert "weight-edit apply me/edit --base organism --out edited\nweight-edit verify organism edited" in card
    assert "from transformers" not in card
    hub.asked.clear()
    made = call("apply", "me/edit", "--base", "organism", "--out", tmp_path / "again", "--token", TOKEN, "--json")
    assert made.code == 0, made.err
    assert made.json["published"] is True
    assert folder_of(tmp_path / "again") == folder_of(baked)
    # The pack, and nothing else of the repository, at the commit that was looked up.
    fetched = [asked.path for asked in hub.asked if "/resolve/" in asked.path]
    assert fetched == [f"me/edit/resolve/{repo.commit}/edit.safetensors"]
    assert TOKEN not in made.out + made.err
    hub.asked.clear()
    local_pack(f"me/edit@{repo.commit}:edit.safetensors", token=TOKEN)
    assert not any("resolve" in asked.path for asked in hub.asked)


@pytest.fixture
def packed(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A Hub with a repository of something that is called as a pack is."""
    monkeypatch.setenv("WEIGHT_EDIT_CACHE", str(tmp_path / "own-cache"))
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/edit.safetensors").write_bytes(b"of a pack" * 100)
    hub.add("me/edit", tmp_path / "repo")
    return hub


def test_what_is_fetched_is_what_the_hub_lists(packed: FakeHub, tmp_path: Path) -> None:
    repo = packed.repos["me/edit"]
    assert local_pack("me/edit").read_bytes() == repo.files["edit.safetensors"]
    for lie, said in (
        (each_file("tree", lfs={"oid": "a" * 64, "size": 900, "pointerSize": 1}), "not what the Hub lists"),
        (each_file("tree", size=-1), "without a size or a digest"),
        (each_file("tree", size=5, lfs={"oid": "b" * 64, "size": 5, "pointerSize": 1}), "not what the Hub lists"),
        (each_file("tree", size=1 << 40), "at most"),
        (each_file("tree", lfs={"oid": "../" * 21 + "x", "size": 900, "pointerSize": 1}), "without a size or a digest"),
        (changed("info", sha="../../x"), "could not be downloaded"),
    ):
        packed.lie = lie
        with pytest.raises(UsageError, match=said):
            local_pack("me/edit")
    packed.lie = None
    repo.broken = {"bytes"}
    repo.files["edit.safetensors"] += b"new"
    with pytest.raises(UsageError, match="not what the Hub lists"):
        local_pack("me/edit")
    kept = [path for path in (tmp_path / "own-cache").rglob("*") if path.is_file()]
    assert [path.name for path in kept] == ["edit.safetensors"]


def test_one_of_several_packs_is_named(packed: FakeHub) -> None:
    packed.repos["me/edit"].files["b.safetensors"] = b"another"
    with pytest.raises(UsageError, match=r"has 2 files that end in .* owner/name:file"):
        local_pack("me/edit")
    assert local_pack("me/edit:b.safetensors").read_bytes() == b"another"
    with pytest.raises(UsageError, match=r"has no file 'c\.safetensors'"):
        local_pack("me/edit:c.safetensors")
    with pytest.raises(UsageError, match="no Hub repository me/none"):
        local_pack("me/none", token=TOKEN)
    with pytest.raises(UsageError, match="there is no pack"):
        local_pack("nothing/here.safetensors")


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_what_has_no_room_is_not_fetched(packed: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed.add("org/base", embedded("organism"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=800))
    for fetch in (lambda: local_pack("me/edit"), lambda: resolve("org/base")):
        packed.asked.clear()
        with pytest.raises(UsageError, match=r"not enough space for .* in the cache.*: .* 800 bytes free"):
            fetch()
        assert not any(asked.path.endswith(".safetensors") for asked in packed.asked)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=900))
    assert local_pack("me/edit").is_file()
