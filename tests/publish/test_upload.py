"""An upload is one commit, read back from the Hub: names are names, and whatever the Hub does is one line."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from tests.helpers.fake_hub import STAGES, FakeHub, commit_of
from weight_edit.checkpoint.manifest import FileRecord, record
from weight_edit.errors import UsageError, VerificationError
from weight_edit.hub.destination import Destination
from weight_edit.publish.upload import Commit, PullRequest, upload

# Every one of them means other files, or more, where it is taken for a pattern.
NAMES = ("notes[1].txt", "*", "a?.md", "[!x]", "{a,b}", "sub/**", "model.safetensors", "empty", "README.md", " b~ ")
HOW = (403, 409, 500, "drop", "text", "empty")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "empty" else f"content of {name}\n".encode())
    return tmp_path / "out"


def send(folder: Path, hub: FakeHub, **options: Any) -> Commit:
    return upload(folder, records(folder), Destination(repo_id="me/model", **options), token=hub.token)


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
    assert first.sent == tuple(sorted(NAMES))
    hub.asked.clear()
    assert send(folder, hub) == replace(first, sent=())
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
        upload(folder, before, Destination(repo_id="me/model"), token=hub.token)
    (folder / "README.md").write_bytes(b"longer than it was when it was checked")
    with pytest.raises(VerificationError, match=r"'README\.md' has 38 bytes there and 21 here"):
        upload(folder, before, Destination(repo_id="me/model"), token=hub.token)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stage", STAGES)
def test_whatever_the_hub_does_is_one_line(hub: FakeHub, folder: Path, stage: str, how: int | str) -> None:
    hub.failing, hub.echo = (stage, how), True
    options = {"branch": "edits"} if stage == "branch" else {}
    # Nothing is read of these answers.
    harmless = {("confirm", "text"), ("confirm", "empty"), ("yaml", "empty"), ("tree", "empty")}
    if (stage, how) in harmless:
        assert send(folder, hub, **options).files
        return
    with pytest.raises((UsageError, VerificationError)) as caught:
        send(folder, hub, **options)
    said = str(caught.value)
    assert said.isprintable()
    assert hub.token not in said
    assert "me/model" in said
    repo = hub.repos.get("me/model")
    committed = repo is not None and set(NAMES) <= set(repo.files)
    assert committed is (stage in ("ref", "readback"))
    if committed:
        assert "the commit was made, but what it has could not be checked" in said or "is not there" in said
    elif (stage == "commit" and how not in (403, 409)) or (stage, how) == ("yaml", "text"):
        # The library reads the card's verdict within the call that commits, too.
        assert "whether it was committed is not known" in said
    else:
        assert "nothing was committed" in said
    if stage == "put" and isinstance(how, int):
        assert "model.safetensors" in said
        assert str(how) in said
    # Nothing was half done: once more, with a Hub that works.
    hub.failing = None
    assert set(send(folder, hub, **options).files) == set(NAMES)


def test_what_the_hub_has_is_not_sent_again(hub: FakeHub, folder: Path) -> None:
    names = ("1.safetensors", "2.safetensors")
    for name in names:
        (folder / name).write_bytes(name.encode() * 99)
    given = records(folder) | {name: record(folder, name, "added") for name in names}
    second = given["2.safetensors"].sha256
    others = {given[name].sha256 for name in ("1.safetensors", "model.safetensors")}

    def stops(request: Any, stage: str) -> bool:
        if stage == "put" and request.path.endswith(second):
            # Files are sent at once, and those that have not begun are given up when one is refused.
            end = time.monotonic() + 60
            while set(hub.stored) != others and time.monotonic() < end:
                time.sleep(0.01)
            request.refuse(403, None, "no more")
            return True
        if stage == "put":
            time.sleep(0.1)
        return False

    hub.hostile = stops
    with pytest.raises(UsageError, match=r"2\.safetensors.*403.*; the repository was created; nothing was committed"):
        upload(folder, given, Destination(repo_id="me/model"), token=hub.token)
    assert set(hub.stored) == others
    hub.hostile = None
    hub.asked.clear()
    assert set(upload(folder, given, Destination(repo_id="me/model"), token=hub.token).sent) == set(given)
    assert [asked.path for asked in hub.asked if asked.method == "PUT"] == [f"lfs/{second}"]


def test_a_branch_is_created_once_and_only_committed_to(hub: FakeHub, folder: Path) -> None:
    first = send(folder, hub, branch="edits/one")
    repo = hub.repos["me/model"]
    assert set(repo.files) == {".gitattributes"}
    assert (first.ref, first.id) == ("edits/one", commit_of(repo.refs["edits/one"]))
    repo.refs["edits/one"]["theirs.txt"] = b"of somebody else"
    hub.commits = 0
    (folder / "README.md").write_bytes(b"---\nlicense: mit\n---\n")
    second = send(folder, hub, branch="edits/one")
    assert second.sent == ("README.md",)
    assert second.others == (".gitattributes", "theirs.txt")
    assert repo.refs["edits/one"]["theirs.txt"] == b"of somebody else"
    assert set(repo.files) == {".gitattributes"}


@pytest.mark.parametrize(
    "name", ["", "-x", "a..b", "/a", "a/", "refs/heads/x", "a b", "x.lock", "0" * 40, "a\nb", "refs/pr/0"]
)
def test_what_is_no_branch_is_said(name: str) -> None:
    with pytest.raises(UsageError, match="is no name that a branch can have"):
        Destination(repo_id="me/model", branch=name)


def test_a_branch_that_moves_on_is_not_committed_over(hub: FakeHub, folder: Path) -> None:
    send(folder, hub)
    (folder / "README.md").write_bytes(b"---\nlicense: mit\n---\n")

    def moves(request: Any, stage: str) -> bool:
        if stage == "commit":
            hub.repos["me/model"].files["new.txt"] = b"new"
        return False

    hub.hostile, hub.commits = moves, 0
    with pytest.raises(UsageError, match=r"412.*nothing was committed; main has moved on meanwhile: push again"):
        send(folder, hub)
    assert hub.repos["me/model"].files["new.txt"] == b"new"


def test_a_pull_request_is_opened_read_back_and_added_to(hub: FakeHub, folder: Path) -> None:
    hub.add("me/model", folder.parent / "nothing")
    commit = send(folder, hub, create_pr=True)
    repo = hub.repos["me/model"]
    assert repo.files == {}
    assert commit.pull_request == PullRequest(1, f"http://127.0.0.1:{hub.port}/me/model/discussions/1")
    assert (commit.ref, commit.id) == ("refs/pr/1", commit_of(repo.refs["refs/pr/1"]))
    (folder / "README.md").write_bytes(b"---\nlicense: mit\n---\n")
    again = send(folder, hub, branch="refs/pr/1")
    assert (again.sent, again.ref, again.pull_request) == (("README.md",), "refs/pr/1", None)
    assert list(repo.refs) == ["refs/pr/1"]


def test_a_pull_request_needs_a_repository_and_its_branch(hub: FakeHub, folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no repository me/model that this token can see"):
        send(folder, hub, create_pr=True)
    assert "me/model" not in hub.repos
    hub.add("me/model", folder.parent / "nothing")
    for options in ({"create_pr": True, "branch": "x"}, {"branch": "refs/pr/3"}):
        with pytest.raises(UsageError, match=r"has no '.*'; nothing was sent"):
            send(folder, hub, **options)
    assert hub.repos["me/model"].refs == {}


@pytest.mark.parametrize("lie", ["number", "commit", "moved"])
def test_what_is_said_of_a_commit_is_checked_where_it_was_to_be(hub: FakeHub, folder: Path, lie: str) -> None:
    hub.add("me/model", folder.parent / "nothing")
    hub.repos["me/model"].refs["refs/pr/1"] = {}

    def lies(stage: str, right: Any) -> Any:
        if stage == "commit":
            wrong = {
                "number": {"pullRequestUrl": f"http://x/{hub.token}/y/discussions/1"},
                "commit": {"commitOid": "1" * 40},
            }
            return {**right, **wrong.get(lie, {})}
        return {**right, "sha": "2" * 40} if (stage, lie) == ("ref", "moved") else right

    hub.lie = lies
    with pytest.raises((UsageError, VerificationError), match="the commit was made, but") as caught:
        send(folder, hub, create_pr=True)
    assert hub.token not in str(caught.value)


@pytest.mark.parametrize("when", ["before", "created", "meanwhile"])
def test_nothing_that_was_to_be_private_is_sent_to_a_public_repository(hub: FakeHub, folder: Path, when: str) -> None:
    if when == "before":
        hub.add("me/model", folder.parent / "nothing")
    at = {"before": "", "created": "info", "meanwhile": "ref"}[when]
    hub.lie = lambda stage, right: {**right, "private": False} if stage == at else right
    said = (
        "has become public meanwhile" if when == "meanwhile" else "is public, and all that is sent .* nothing was sent"
    )
    with pytest.raises((UsageError, VerificationError), match=said):
        send(folder, hub, private=True)
    assert (hub.stored != {}) is (when == "meanwhile")


def test_addresses_are_the_hubs_own_whatever_it_says(hub: FakeHub, folder: Path) -> None:
    hub.lie = lambda stage, right: (
        {**right, "commitUrl": f"http://127.0.0.1:{hub.port}/{hub.token}/x/commit/1"} if stage == "commit" else right
    )
    assert send(folder, hub).url.startswith(f"http://127.0.0.1:{hub.port}/me/model/commit/")


def test_a_hub_that_is_not_there_is_one_line(hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.stop()
    with pytest.raises(UsageError, match=r"'me/model' could not be looked up: .*refused.*; nothing was committed"):
        send(folder, hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"'me/model' could not be looked up: .*; nothing was committed"):
        send(folder, hub)
