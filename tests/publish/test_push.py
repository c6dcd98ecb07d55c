"""Pushing refuses what was not verified, and sends what was: literal files, one commit, no token in a message."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.baked_organism import organism_row
from tests.helpers.fake_hub import FakeHub
from weight_edit.baking.bake import bake
from weight_edit.baking.card.card_and_manifest import stamp, summary_of
from weight_edit.checkpoint.manifest import MANIFEST, read_manifest, record, records_of, write_manifest
from weight_edit.errors import UsageError, VerificationError
from weight_edit.organism.embedded import folder
from weight_edit.publish import push as pushing
from weight_edit.publish.push import push

TOKEN = FakeHub.token


@pytest.fixture
def named_oddly(tmp_path: Path) -> tuple[Path, Path]:
    """A base with files whose names are patterns, and its edit with folders of tools in it."""
    base = Path(shutil.copytree(folder(), tmp_path / "base"))
    for name in ("notes[1].txt", "*", "sub/a?.md"):
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text(f"content of {name}", encoding="utf-8")
    bake(base, organism_row(), tmp_path / "out")
    for name in (".git/config", ".cache/huggingface/x", "sub/__pycache__/x.pyc"):
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_text("of a tool", encoding="utf-8")
    return base, tmp_path / "out"


def test_a_dry_run_verifies_and_lists_but_sends_nothing(baked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "upload", lambda *args, **options: pytest.fail("a dry run must not upload"))
    result = push(baked, "me/model", dry_run=True)
    assert result.url is None
    assert result.verification.passed
    assert result.files == {path.name: path.stat().st_size for path in baked.iterdir()}


def test_what_is_reported_is_what_the_commit_has(hub: FakeHub, named_oddly: tuple[Path, Path]) -> None:
    base, out = named_oddly
    result = push(out, "me/model", base=base, private=True, token=f"{TOKEN}\n")
    repo = hub.repos["me/model"]
    assert repo.access == "private"
    assert {"notes[1].txt", "*", "sub/a?.md", "README.md", MANIFEST} < set(result.files)
    assert result.files == {name: len(data) for name, data in repo.files.items() if name != ".gitattributes"}
    assert {name: repo.files[name] for name in result.files} == {
        name: (out / name).read_bytes() for name in result.files
    }
    assert result.skipped == (".cache", ".git", "sub/__pycache__")
    assert result.others == (".gitattributes",)
    assert result.url == f"http://127.0.0.1:{hub.port}/me/model/commit/{repo.commit}"
    assert TOKEN not in json.dumps(result.to_dict())


def test_the_command_says_what_was_sent_and_what_was_not(
    hub: FakeHub, call: Any, named_oddly: tuple[Path, Path]
) -> None:
    base, out = named_oddly
    result = call("push", out, "me/model", "--base", base, "--token", f"{TOKEN}\r\n")
    assert result.code == 0, result.err
    assert "notes[1].txt" in result.out
    assert "not sent: .cache, .git, sub/__pycache__" in result.out
    assert "there besides: .gitattributes" in result.out
    assert TOKEN not in result.out + result.err


def test_the_command_says_where_it_went(hub: FakeHub, call: Any, baked: Path) -> None:
    def push_to(*options: str) -> str:
        result = call("push", baked, "me/model", "--token", TOKEN, *options)
        assert result.code == 0, result.err
        return result.out

    count = len(list(baked.iterdir()))
    assert f"pushed {count} of {count} files to edits of me/model (private): http" in push_to(
        "--private", "--branch", "edits"
    )
    assert "nothing was sent: edits of me/model (private) has all of it" in push_to("--branch", "edits")
    said = push_to("--create-pr")
    assert f"pull request 1: http://127.0.0.1:{hub.port}/me/model/discussions/1" in said
    assert "to refs/pr/1 of me/model" in said
    document = call("push", baked, "me/model", "--token", TOKEN, "--branch", "refs/pr/1", "--json").json
    assert (document["sent"], document["ref"], document["private"]) == ([], "refs/pr/1", True)
    hub.repos["me/model"].access = "public"
    refused = call("push", baked, "me/model", "--token", TOKEN, "--private")
    assert refused.code == 2
    assert "is public, and all that is sent to it is public at once" in refused.err
    assert "leave --private out" in refused.err


@pytest.mark.parametrize(
    "failing", [("create", 403), ("commit", 409), ("preupload", 500), ("readback", "empty"), "gone"]
)
def test_a_push_that_fails_is_one_line_without_the_token(hub, call, baked, monkeypatch, failing) -> None:
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\n")
    hub.echo = True
    if failing == "gone":
        hub.stop()
    else:
        hub.failing = failing
    result = call("push", baked, "me/model", "--json")
    assert result.code == (4 if failing == ("readback", "empty") else 2)
    assert result.json["error"].startswith(("'me/model' could not be", "me/model at commit"))
    assert "Traceback" not in result.err
    assert TOKEN not in result.out + result.err


def test_a_token_that_cannot_be_sent_is_said_before_anything_else(hub: FakeHub, call: Any, tmp_path: Path) -> None:
    result = call("push", tmp_path, "me/model", "--token", "hf_abc\x01def")
    assert result.code == 2
    assert "cannot be sent" in result.err
    assert "hf_abc" not in result.err


def test_a_hub_that_cannot_be_reached_is_said(hub: FakeHub, baked: Path) -> None:
    hub.stop()
    with pytest.raises(UsageError, match=r"'me/model' could not be looked up: .*refused"):
        push(baked, "me/model", token=TOKEN)


def test_a_changed_or_stray_file_is_not_pushed(baked: Path) -> None:
    (baked / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(VerificationError, match=r"notes\.txt"):
        push(baked, "me/model", dry_run=True)
    (baked / "notes.txt").unlink()
    (baked / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(VerificationError, match=r"config\.json"):
        push(baked, "me/model", dry_run=True)


def test_a_card_that_is_not_the_manifests_is_not_pushed(baked: Path) -> None:
    manifest = read_manifest(baked)
    assert manifest is not None
    (baked / "README.md").write_text("---\nlicense: mit\n---\n# All mine\n", encoding="utf-8")
    measured = {"measurements": manifest["measurements"]}
    records = records_of(manifest) | {"README.md": record(baked, "README.md", "added")}
    write_manifest(baked, summary_of(manifest) | measured, records)
    with pytest.raises(VerificationError, match=r"was not pushed: README\.md: is not the model card"):
        push(baked, "me/model", dry_run=True)


def test_a_local_path_is_not_published(tmp_path: Path) -> None:
    shutil.copytree(folder(), tmp_path / "private-place/base")
    bake(tmp_path / "private-place/base", organism_row(), tmp_path / "out")
    for name in ("weight_edit.json", "README.md"):
        assert "private-place" not in (tmp_path / "out" / name).read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="where it is with `base`"):
        push(tmp_path / "out", "me/model", dry_run=True)
    assert push(tmp_path / "out", "me/model", base=tmp_path / "private-place/base", dry_run=True).verification.passed


def test_a_failed_model_is_not_pushed(baked: Path) -> None:
    stamp(baked, {"baseline": {}, "edited": {}, "verification": None}, failed=("leak: too large",))
    with pytest.raises(VerificationError, match="marked as failed: leak"):
        push(baked, "me/model", dry_run=True)


def test_what_is_no_output_of_ours_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"weight_edit\.json"):
        push(tmp_path, "me/model")
    with pytest.raises(UsageError, match="owner/name"):
        push(tmp_path, "not a name")
