"""Low-disk: a Hub model is checked before any weight comes, and its shards come and go one at a time."""

import os
import shutil
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.checkpoint_samples import BASE_TENSORS, bits, content, make_checkpoint
from weight_edit.checkpoint.files import list_files
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UsageError
from weight_edit.hub import low_disk as remote
from weight_edit.hub.low_disk import LowDiskSource

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=lambda seconds: None))


@pytest.fixture
def folder(tmp_path):
    return make_checkpoint(tmp_path / "m", shards=2)


def weights_on_disk(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*.safetensors*") if INDEX not in file.name)


def test_everything_is_known_before_any_weight_is_downloaded(hub, folder, tmp_path):
    repo = hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        assert (low.source.name, low.source.revision) == ("org/model", repo.commit)
        remote, local = Checkpoint.open(low.source.path, low), Checkpoint.open(folder)
        assert weights_on_disk(tmp_path / "low") == []
        assert hub.sent() == []
        assert remote.headers == local.headers
        assert remote.shards == SHARDS
        assert set(remote.files) == set(local.files) - {"consolidated.safetensors", "assets/deep/vocab.bin"}
        assert [remote.file_size(shard) for shard in SHARDS] == [local.file_size(shard) for shard in SHARDS]
        assert remote.size == sum(local.file_size(name) for name in remote.files)
        assert remote.header_bytes(SHARDS[0]) == local.header_bytes(SHARDS[0])
    assert not (tmp_path / "low").exists()


def test_tensors_are_read_by_ranges_until_their_shard_comes(hub, folder, tmp_path, monkeypatch):
    hub.add("org/model", folder)
    monkeypatch.setattr(remote, "_HEAD", 8)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        for name, tensor in BASE_TENSORS.items():
            assert bits(checkpoint.read(name)) == bits(tensor)
            assert b"".join(checkpoint.raw(name)) == bits(tensor)
        gain = "model.layers.0.norm.weight"
        assert torch.equal(torch.from_numpy(checkpoint.values(gain)), BASE_TENSORS[gain].double())
        assert weights_on_disk(tmp_path / "low") == []
        assert hub.sent() == []


def test_short_headers_and_what_follows_them_cost_one_request(hub, folder, tmp_path):
    hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        Checkpoint.open(low.source.path, low)
    assert len([asked for asked in hub.asked if asked.range is not None and asked.path.startswith("cdn/")]) == 2


def test_shards_come_and_go_one_at_a_time(hub, folder, tmp_path):
    hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        for number, shard in enumerate(SHARDS, 1):
            path = checkpoint.fetch(shard)
            assert path == tmp_path / "low" / shard
            assert hub.sent() == list(SHARDS[:number])
            assert path.read_bytes() == (folder / shard).read_bytes()
            with checkpoint.open_file(shard) as file:
                assert file.read() == (folder / shard).read_bytes()
            assert checkpoint.fetch(shard) == path
            checkpoint.drop(shard)
            assert weights_on_disk(tmp_path / "low") == []
            with pytest.raises(UsageError, match="is missing"):
                checkpoint.open_file(shard)
        assert bits(checkpoint.read("model.scale")) == bits(BASE_TENSORS["model.scale"])
        assert hub.sent() == list(SHARDS)
        low.drop(SHARDS[0])


def test_a_single_file_model(hub, tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        assert (checkpoint.shards, checkpoint.index_file) == (("model.safetensors",), None)
        assert checkpoint.fetch("model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_what_an_interrupted_run_left_is_used_again(hub, folder, tmp_path):
    repo = hub.add("org/model", folder)
    first = LowDiskSource.open("org/model", tmp_path / "low")
    Checkpoint.open(first.source.path, first).fetch(SHARDS[0])
    (tmp_path / "low" / "tokenizer.model").write_text("of another commit")
    # As when its process is killed.
    os.close(first._lock)
    hub.asked.clear()
    with LowDiskSource.open("org/model", tmp_path / "low", revision=repo.commit) as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        checkpoint.fetch(SHARDS[0])
        assert "tokenizer.model" not in checkpoint.files
        assert hub.sent() == []
    assert not (tmp_path / "low").exists()


def test_only_downloads_are_deleted(hub, folder, tmp_path):
    hub.add("org/model", folder)
    before = content(folder)
    for name in (folder, "organism"):
        with pytest.raises(UsageError, match="on this disk already"):
            LowDiskSource.open(name, tmp_path / "low")
    with pytest.raises(UsageError, match="is not empty"):
        LowDiskSource.open("org/model", folder)
    assert not (tmp_path / "low").exists()
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.fetch(SHARDS[0]) == folder / SHARDS[0]
    checkpoint.drop(SHARDS[0])
    assert content(folder) == before


def test_the_cache_of_the_hub_is_left_alone(hub, folder, tmp_path):
    from weight_edit.hub.source import resolve

    hub.add("org/model", folder)
    cached = resolve("org/model").path
    before = content(cached)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        for shard in SHARDS:
            checkpoint.fetch(shard)
            checkpoint.drop(shard)
    assert content(cached) == before


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("no ranges", "cannot be read in parts"),
        ("short ranges", "bytes came where"),
        ("error 500", "org/model"),
    ],
)
def test_a_hub_that_does_not_do_ranges(hub, folder, tmp_path, broken, words):
    repo = hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        repo.broken = {broken}
        with pytest.raises(UsageError, match=words) as caught:
            Checkpoint.open(low.source.path, low)
        assert str(caught.value).isprintable()


def test_a_cut_connection_is_tried_again(hub, folder, tmp_path):
    repo = hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        repo.broken = {"cut"}
        checkpoint = Checkpoint.open(low.source.path, low)
        assert repo.broken == set()
        repo.broken = {"cut"}
        assert checkpoint.fetch(SHARDS[0]).read_bytes() == (folder / SHARDS[0]).read_bytes()
        assert repo.broken == set()


def test_a_shard_that_comes_damaged_is_refused_and_deleted(hub, folder, tmp_path):
    repo = hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        repo.broken = {"bytes"}
        with pytest.raises(UsageError, match=r"model-00001-of-00002\.safetensors of org/model came damaged.*SHA-256"):
            checkpoint.fetch(SHARDS[0])
        assert weights_on_disk(tmp_path / "low") == []


def test_a_shard_with_another_header_than_the_one_read_is_refused(hub, folder, tmp_path):
    hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        shutil.copy(folder / SHARDS[1], tmp_path / "low" / "other")
        low.fetch = lambda shard: shutil.move(tmp_path / "low" / "other", tmp_path / "low" / shard)
        with pytest.raises(UsageError, match="not the file whose header was read"):
            checkpoint.fetch(SHARDS[0])


def test_hostile_headers_are_refused_without_a_download(hub, folder, tmp_path):
    for raw, words in (
        ((2**40).to_bytes(8, "little") + b"{}", "above the limit"),
        ((500).to_bytes(8, "little") + b"{}", "longer than the file"),
        (b"short", "too short"),
        (b"", "too short"),
        ((2).to_bytes(8, "little") + b"{}" + b"extra", "belong to no tensor"),
    ):
        (folder / SHARDS[0]).write_bytes(raw)
        hub.add("org/model", folder)
        with LowDiskSource.open("org/model", tmp_path / "low") as low, pytest.raises(UsageError, match=words):
            Checkpoint.open(low.source.path, low)
    assert hub.sent() == []


def test_a_failed_start_leaves_nothing(hub, folder, tmp_path):
    (folder / INDEX).write_text("{")
    hub.add("org/model", folder)
    hub.add("org/gated", folder, access="gated")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "x.gguf").write_bytes(b"GGUF")
    hub.add("org/gguf", bare)
    for name, error, words in (
        ("org/model", UsageError, "not valid JSON"),
        ("org/gated", UsageError, "is gated"),
        ("org/none", UsageError, "no Hub repository"),
        ("org/gguf", UsageError, "hf download org/gguf x.gguf"),
    ):
        with pytest.raises(error, match=words):
            LowDiskSource.open(name, tmp_path / "low")
        assert not (tmp_path / "low").exists()
    hub.stop()
    with pytest.raises(UsageError, match="cannot be reached"):
        LowDiskSource.open("org/model", tmp_path / "low")


def test_the_token_goes_to_the_hub_alone_and_is_kept_nowhere(hub, folder, tmp_path):
    hub.add("org/private", folder, access="private")
    with LowDiskSource.open("org/private", tmp_path / "low", token=hub.token) as low:
        checkpoint = Checkpoint.open(low.source.path, low)
        checkpoint.fetch(SHARDS[0])
        assert hub.token not in repr(low) + repr(checkpoint)
        kept = [*(tmp_path / "low").rglob("*"), *(tmp_path / "cache").rglob("*")]
        assert SHARDS[0] in {path.name for path in kept}
        assert not any(hub.token.encode() in path.read_bytes() for path in kept if path.is_file())
    assert {asked.token for asked in hub.asked if asked.path.startswith("cdn/")} == {None}
    assert {asked.token for asked in hub.asked if not asked.path.startswith("cdn/")} == {hub.token}


def test_the_small_files_are_those_of_an_ordinary_download(hub, folder, tmp_path):
    from weight_edit.hub.source import resolve

    hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        small = set(list_files(low.source.path)[0])
    assert small | set(SHARDS) == set(list_files(resolve("org/model").path)[0])


def test_two_at_one_folder_do_not_delete_each_others_downloads(hub, folder, tmp_path):
    hub.add("org/model", folder)
    with LowDiskSource.open("org/model", tmp_path / "low") as low:
        low.fetch(SHARDS[0])
        with pytest.raises(UsageError, match="another process downloads"):
            LowDiskSource.open("org/model", tmp_path / "low")
        assert (tmp_path / "low" / SHARDS[0]).exists()
    assert not (tmp_path / "low").exists()
