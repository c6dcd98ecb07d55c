"""An upload is one commit, read back from the Hub: names are names, and whatever the Hub does is one line."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.helpers.fake_hub import STAGES, FakeHub
from weight_edit.checkpoint.manifest import FileRecord, record
from weight_edit.errors import UsageError, VerificationError
from weight_edit.publish.upload import Commit, upload

# Every one of them means other files, or more, where it is taken for a pattern.
NAMES = ("notes[1].txt", "*", "a?.md", "[!x]", "{a,b}", "sub/**", "model.safetensors", "empty", "README.md", " b~ ")
HOW = (401, 403, 409, 429, 500, "drop", "text", "list", "empty")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else f"content of {name}\n".encode())
    return tmp_path / "out"


def send(folder: Path, hub: FakeHub, **options: bool) -> Commit:
    return upload(folder, records(folder), "me/model", token=hub.token, **options)


def records(folder: Path) -> dict[str, FileRecord]:
    return {name: record(folder, name, "added") for name in NAMES}


def test_what_is_reported_is_what_the_commit_has(hub: FakeHub, folder: Path) -> None:
    (folder / "a1.md").write_text("not to be sent")
    (folder / "notes1.txt").write_text("nor this")
    commit = send(folder, hub, private=True)
    repo = hub.repos["me/model"]
    assert repo.access == "private"
    assert set(repo.files) == {*NAMES, ".gitattributes"}
    assert {name: repo.files[name] for name in NAMES} == {name: (folder / name).read_bytes() for name in NAMES}
    assert commit.files == {name: (folder / name).stat().st_size for name in NAMES}
    assert commit.others == (".gitattributes",)
    assert (commit.id, commit.url) == (repo.commit, f"http://127.0.0.1:{hub.port}/me/model/commit/{repo.commit}")
    assert sum(asked.path.endswith("commit/main") for asked in hub.asked) == 1


def test_an_upload_once_more_sends_nothing_and_reports_the_same(hub: FakeHub, folder: Path) -> None:
    first = send(folder, hub)
    hub.asked.clear()
    assert send(folder, hub) == first
    assert not any(asked.method == "PUT" or asked.path.endswith("commit/main") for asked in hub.asked)


def test_a_file_that_the_commit_has_not_is_an_error(hub: FakeHub, folder: Path) -> None:
    send(folder, hub)
    hub.repos["me/model"].files.pop("*")
    hub.repos["me/model"].ignored = {"*"}
    with pytest.raises(VerificationError, match=r"'\*' is not there.*\.gitignore"):
        send(folder, hub)


@pytest.mark.parametrize("name", ["notes[1].txt", "model.safetensors"])
def test_another_content_in_the_commit_is_an_error(hub: FakeHub, folder: Path, name: str) -> None:
    hub.damaged = {name}
    with pytest.raises(VerificationError, match="has another content there than here") as caught:
        send(folder, hub)
    assert name in str(caught.value)


def test_a_file_that_changed_since_it_was_checked_is_an_error(hub: FakeHub, folder: Path) -> None:
    before = records(folder)
    (folder / "README.md").write_bytes((folder / "README.md").read_bytes().upper())
    with pytest.raises(VerificationError, match=r"'README\.md' has another content"):
        upload(folder, before, "me/model", token=hub.token)
    (folder / "README.md").write_bytes(b"longer than it was when it was checked")
    with pytest.raises(VerificationError, match=r"'README\.md' has 38 bytes there and 21 here"):
        upload(folder, before, "me/model", token=hub.token)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stage", STAGES)
def test_whatever_the_hub_does_is_one_line(hub: FakeHub, folder: Path, stage: str, how: int | str) -> None:
    hub.failing, hub.echo = (stage, how), True
    harmless = {
        # Nothing is read of these answers.
        *(("confirm", what) for what in ("text", "list", "empty")),
        ("yaml", "empty"),
    }
    if stage == "create":
        hub.add("me/model", folder.parent / "nothing")
    if (stage, how) in harmless or (stage == "create" and how in (401, 403)):
        assert send(folder, hub).files
        return
    with pytest.raises((UsageError, VerificationError)) as caught:
        send(folder, hub)
    said = str(caught.value)
    assert said.isprintable()
    assert hub.token not in said
    assert "me/model" in said
    committed = set(NAMES) <= set(hub.repos["me/model"].files)
    assert committed is (stage == "tree")
    if stage == "tree" and how in ("list", "empty"):
        assert "is not there" in said or "could not be checked" in said
    elif stage == "tree":
        assert "the commit was made, but what it has could not be checked" in said
    elif stage == "yaml" or (stage == "commit" and how not in (401, 403, 409, 429)):
        # The card is validated within the call that commits.
        assert "whether it was committed is not known" in said
    else:
        assert "nothing was committed" in said
    if stage == "put" and isinstance(how, int):
        assert "model.safetensors" in said
        assert str(how) in said
    # Nothing was half done: once more, with a Hub that works.
    hub.failing = None
    assert set(send(folder, hub).files) == set(NAMES)


def test_a_hub_that_is_not_there_is_one_line(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.stop()
    with pytest.raises(UsageError, match=r"'me/model' could not be made: .*refused.*; nothing was committed"):
        send(folder, hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"'me/model' could not be made: .*; nothing was committed"):
        send(folder, hub)
