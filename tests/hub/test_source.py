"""Where a model's files come from: exactly the needed files of a Hub repository, and one line when that fails."""

import json

import pytest
from huggingface_hub import constants

from tests.helpers.checkpoint_samples import content, make_checkpoint
from tests.helpers.fake_hub import FakeHub
from weight_edit.checkpoint.files import list_files
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.hub.source import check_named, resolve

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """A sharded model with second copies of every kind."""
    folder = make_checkpoint(tmp_path / "m", shards=2)
    for name in ("original/model.safetensors", "model.fp16.safetensors", "pytorch_model.bin", "onnx/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never read")
    for name in ("original/params.json", "README.md", "sub/extra.txt", "consolidated.safetensors.index.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    return folder


SMALL = {
    ".gitattributes",
    "README.md",
    "config.json",
    "empty.txt",
    "modeling_tiny.py",
    "sub/extra.txt",
    "tokenizer.json",
}
SHARDS = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


def files_in(source):
    return set(list_files(source.path)[0])


def refused(error, words, *args, **options):
    with pytest.raises(error, match=words) as caught:
        resolve(*args, **options)
    assert str(caught.value).isprintable()
    assert "Signature" not in str(caught.value)
    assert FakeHub.token not in str(caught.value)


def test_exactly_the_needed_files_are_downloaded(hub, folder):
    repo = hub.add("org/model", folder)
    source = resolve("org/model")
    assert source.revision == repo.commit
    assert (source.name, source.on_hub) == ("org/model", True)
    assert files_in(source) == {*SMALL, *SHARDS, INDEX}
    assert set(hub.sent()) == SHARDS
    checkpoint = Checkpoint.open(source.path)
    assert checkpoint.other_weights == ()
    assert {name: bytes(checkpoint.read_file(name)) for name in checkpoint.files} == {
        name: data for name, data in content(folder).items() if name in {*SMALL, *SHARDS, INDEX}
    }


def test_without_weights_no_shard_is_touched(hub, folder):
    hub.add("org/model", folder)
    source = resolve("org/model", weights=False)
    assert files_in(source) == SMALL
    assert hub.sent() == []


def test_a_single_file_wins_and_the_config_may_name_another(hub, folder):
    (folder / "model.safetensors").write_bytes((folder / "consolidated.safetensors").read_bytes())
    hub.add("org/model", folder)
    assert files_in(resolve("org/model")) == {*SMALL, "model.safetensors"}
    config = json.loads((folder / "config.json").read_text()) | {"transformers_weights": "consolidated.safetensors"}
    (folder / "config.json").write_text(json.dumps(config))
    hub.add("org/other", folder)
    source = resolve("org/other")
    assert Checkpoint.open(source.path).shards == ("consolidated.safetensors",)
    assert files_in(source) == {*SMALL, "consolidated.safetensors"}


@pytest.mark.parametrize("how", ["offline", "refused"])
def test_a_cached_snapshot_serves_without_the_hub(hub, folder, monkeypatch, how):
    hub.add("org/model", folder)
    online = resolve("org/model", revision="main")
    if how == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hub.stop()
    assert resolve("org/model", revision="main") == online
    assert resolve("org/model", revision=online.revision) == online
    refused(UsageError, "cannot be reached and no copy of org/none", "org/none")
    (online.path / min(SHARDS)).unlink()
    refused(UsageError, "no copy of org/model at revision main is cached", "org/model", revision="main")


def test_a_snapshot_that_nobody_listed_serves_offline(hub, folder, monkeypatch, tmp_path):
    hub.add("org/model", folder)
    online = resolve("org/model")
    listings = list((tmp_path / "cache").rglob("trees/*.json"))
    assert listings
    for path in listings:
        path.unlink()
    monkeypatch.setattr("huggingface_hub._tree_cache._IN_MEMORY_TREE_CACHE", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("org/model") == online
    (online.path / min(SHARDS)).unlink()
    refused(UsageError, "model-00001-of-00002.safetensors.*not in the folder", "org/model")


def test_access(hub, folder):
    hub.add("org/private", folder, access="private")
    hub.add("org/gated", folder, access="gated")
    refused(UsageError, "no Hub repository org/private", "org/private")
    refused(UsageError, "no Hub repository org/none", "org/none")
    refused(UsageError, "org/gated is gated: accept its terms", "org/gated")
    refused(UsageError, "does not accept the token", "org/private", token="hf_wrong")
    for name in ("org/private", "org/gated"):
        assert Checkpoint.open(resolve(name, token=hub.token).path).tensors
    assert {asked.token for asked in hub.asked if asked.path.startswith("cdn/")} == {None}


def test_revisions(hub, folder):
    repo = hub.add("org/model", folder)
    refused(UsageError, "org/model has no revision v9", "org/model", revision="v9")
    assert resolve("org/model", revision=repo.commit).revision == repo.commit


def test_a_hub_that_breaks(hub, folder):
    repo = hub.add("org/model", folder)
    repo.broken = {"error 500"}
    refused(UsageError, "org/model", "org/model")
    repo.broken = {"cut"}
    assert Checkpoint.open(resolve("org/model").path).tensors


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        (
            {"m-q4.gguf": b"", "m-q8.gguf": b"", "README.md": b""},
            UsageError,
            r"GGUF alone \(m-q4.gguf, m-q8.gguf\); download one \(hf download org/model m-q4.gguf\) and give its path",
        ),
        (
            {"m-00001-of-00002.gguf": b"", "m-00002-of-00002.gguf": b"", "config.json": b"{}"},
            UsageError,
            r"\(hf download org/model --include 'm-\*-of-00002.gguf'\)",
        ),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b""}, UnsupportedError, "is an adapter"),
        ({"config.json": b"{}", "pytorch_model.bin": b""}, UnsupportedError, "pickled"),
        ({"config.json": b"{}", "README.md": b""}, UsageError, "neither model.safetensors nor"),
        ({"README.md": b""}, UsageError, "org/model has no config.json"),
        ({"config.json": b"[]"}, UsageError, "must be a JSON object"),
        ({"config.json": b"{", "model.safetensors": b""}, UsageError, "not valid JSON"),
        ({"config.json": b"{}", INDEX: b'{"weight_map": {"a": "../b.safetensors"}}'}, UsageError, "inside the folder"),
        ({"config.json": b"{}", INDEX: b'{"weight_map": {"a": "b.safetensors"}}'}, UsageError, "'b.safetensors'"),
    ],
)
def test_repositories_without_usable_weights(hub, tmp_path, files, error, words):
    folder = tmp_path / "m"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    hub.add("org/model", folder)
    refused(error, words, "org/model")


def test_local_models(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: pytest.fail("asked the Hub"))
    (tmp_path / "only-gguf").mkdir()
    (tmp_path / "only-gguf" / "y.gguf").write_bytes(b"GGUF")
    assert resolve(tmp_path / "only-gguf").path == tmp_path / "only-gguf"
    assert resolve(tmp_path / "only-gguf" / "y.gguf").path == tmp_path / "only-gguf" / "y.gguf"
    check_named(tmp_path / "only-gguf")
    refused(UsageError, "is a local folder and has no revision", tmp_path / "only-gguf", revision="main")
    (tmp_path / "only-gguf" / "z.gguf").write_bytes(b"GGUF")
    refused(UsageError, r"several GGUF models \(y.gguf, z.gguf\); give the file itself", tmp_path / "only-gguf")
    refused(UsageError, "there is no file nowhere.gguf", "nowhere.gguf")
    refused(UsageError, "has no revision", "organism", revision="main")
    assert resolve("organism").revision is None
