"""What counts as a checkpoint, which weights are the model's, and what is refused by name."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.checkpoint_samples import BASE_TENSORS, bits, content, make_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.errors import UnsupportedError, UsageError

INDEX = "model.safetensors.index.json"


def refused(path: Path, *named: str, error: type[Exception] = UsageError) -> None:
    with pytest.raises(error) as caught:
        Checkpoint.open(path)
    for text in named:
        assert text in str(caught.value)
    assert str(caught.value).isprintable()


def edit_index(folder: Path, change) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_reads_every_tensor_as_it_is(tmp_path, shards):
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path / "m", shards=shards))
    assert set(checkpoint.tensors) == set(BASE_TENSORS)
    for name, tensor in BASE_TENSORS.items():
        read = checkpoint.read(name)
        assert (read.dtype, read.shape, bits(read)) == (tensor.dtype, tensor.shape, bits(tensor))
        assert b"".join(checkpoint.raw(name)) == bits(tensor)
        info = checkpoint.tensors[name]
        assert (info.name, info.shape) == (name, tuple(tensor.shape))
    assert len(checkpoint.shards) == max(shards, 1)
    assert checkpoint.index_file == (INDEX if shards else None)
    assert checkpoint.config["model_type"] == "tiny"


def test_reading_gives_memory_of_its_own(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    before = content(folder)
    checkpoint = Checkpoint.open(folder)
    checkpoint.read("model.embed.weight").zero_()
    assert content(folder) == before
    assert torch.equal(checkpoint.read("model.embed.weight"), BASE_TENSORS["model.embed.weight"])


def test_lists_other_files_and_says_what_it_skips(tmp_path):
    folder = make_checkpoint(tmp_path / "m", shards=2)
    for hidden in (".git", ".cache", "assets/__pycache__"):
        (folder / hidden).mkdir()
        (folder / hidden / "x").write_text("x")
    (folder / "weight_edit.json").write_text("{}")
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.other_files == (
        ".gitattributes",
        "assets/deep/vocab.bin",
        "consolidated.safetensors",
        "empty.txt",
        "modeling_tiny.py",
        "tokenizer.json",
    )
    assert checkpoint.skipped == (".cache", ".git", "assets/__pycache__")
    assert checkpoint.other_weights == ("assets/deep/vocab.bin", "consolidated.safetensors")
    assert set(checkpoint.files) == {*checkpoint.other_files, *checkpoint.shards, INDEX, "config.json"}


def test_a_single_file_wins_over_an_index_as_in_transformers(tmp_path):
    folder = make_checkpoint(tmp_path / "m", shards=2)
    save_file({"one": torch.ones(1)}, folder / "model.safetensors")
    checkpoint = Checkpoint.open(folder)
    assert set(checkpoint.tensors) == {"one"}
    assert {INDEX, "model-00001-of-00002.safetensors"} <= set(checkpoint.other_files)


def test_the_config_may_name_the_weights_as_in_transformers(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    (folder / "config.json").write_text('{"transformers_weights": "consolidated.safetensors"}')
    assert set(Checkpoint.open(folder).tensors) == {"unused"}
    for bad, named in (
        ("../x.safetensors", "inside"),
        ("a.bin", "no safetensors"),
        ("b.safetensors", "not in the"),
    ):
        (folder / "config.json").write_text(json.dumps({"transformers_weights": bad}))
        refused(folder, "config.json", named)


def test_refuses_what_is_no_checkpoint(tmp_path):
    refused(tmp_path / "none", "none", "does not exist")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is not a folder")
    refused(tmp_path / ("n" * 300), "cannot be opened")
    folder = make_checkpoint(tmp_path / "m", extras=False)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    refused(folder, "neither model.safetensors nor")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02cos\nsystem\n")
    refused(folder, "pytorch_model.bin", "save_pretrained", error=UnsupportedError)
    (folder / "model.safetensors").write_bytes(weights)
    for config, named in (
        (b"[]", "object"),
        (b"{", "not valid JSON"),
        (b"\xff", "UTF-8"),
        (b"[" * 10**5, "deep"),
    ):
        (folder / "config.json").write_bytes(config)
        refused(folder, "config.json", named)
    (folder / "config.json").unlink()
    refused(folder, "has no config.json")


def test_refuses_damaged_shards_by_name(tmp_path):
    folder = make_checkpoint(tmp_path / "m", shards=2)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    refused(folder, "model-00002-of-00002.safetensors", "tensor")
    shard.unlink()
    refused(folder, INDEX, "model-00002-of-00002.safetensors", "not in the folder")
    save_file({}, folder / "model.safetensors")
    refused(folder, "model.safetensors", "has no tensors")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda i: i["weight_map"].update(ghost="model-00001-of-00002.safetensors"), "ghost"),
        (lambda i: i["weight_map"].pop("model.scale"), "model.scale"),
        (
            lambda i: i["weight_map"].update(
                {
                    "model.scale": "model-00001-of-00002.safetensors",
                    "model.empty": "model-00002-of-00002.safetensors",
                }
            ),
            "is not in model-0000",
        ),
        (lambda i: i["weight_map"].update(ghost="nowhere.safetensors"), "nowhere.safetensors"),
        (
            lambda i: i["weight_map"].update(ghost="../m/model-00001-of-00002.safetensors"),
            "inside the folder",
        ),
        (lambda i: i["weight_map"].update(ghost="/etc/passwd.safetensors"), "inside the folder"),
        (lambda i: i["weight_map"].update(ghost="a\\b.safetensors"), "inside the folder"),
        (lambda i: i["weight_map"].update(ghost="modeling_tiny.py"), "no .safetensors file"),
        (lambda i: i["weight_map"].update(ghost=7), "ghost"),
        (lambda i: i["weight_map"].update(ghost=["a"]), "ghost"),
        (lambda i: i["weight_map"].clear(), "empty"),
        (lambda i: i.update(weight_map=[]), "weight_map"),
        (lambda i: i.update(metadata=3), "metadata"),
    ],
)
def test_refuses_an_index_that_disagrees_with_the_shards(tmp_path, change, named):
    folder = make_checkpoint(tmp_path / "m", shards=2)
    edit_index(folder, change)
    refused(folder, named)


def test_refuses_an_index_with_a_name_twice(tmp_path):
    folder = make_checkpoint(tmp_path / "m", shards=1)
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace('"weight_map": {', '"weight_map": {"model.scale": "x.safetensors",'))
    refused(folder, INDEX, "'model.scale' appears twice")


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"", "not valid JSON"),
        (b'{"weight_map": {"a": "b.safete', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"weight_map": {"\xff": 1}}', "not valid UTF-8"),
        (b'{"weight_map":' + b"[" * 100_000, "nested too deeply"),
        (b'{"weight_map":' + b"9" * 10_000 + b"}", INDEX),
        (b'{"weight_map": {"a": "\\ud800.safetensors"}}', "no valid Unicode"),
        (b'{"weight_map": {"a": "\\u0000.safetensors"}}', "inside the folder"),
        (b'{"weight_map": {"a": "./model-00001-of-00002.safetensors"}}', "inside the folder"),
        (b"[]", "weight_map"),
    ],
)
def test_refuses_an_index_that_is_damaged(tmp_path, raw, named):
    folder = make_checkpoint(tmp_path / "m", shards=2)
    (folder / INDEX).write_bytes(raw)
    refused(folder, INDEX, named)


def test_refuses_shards_that_are_no_files(tmp_path):
    folder = make_checkpoint(tmp_path / "m", shards=2)
    shard = folder / "model-00001-of-00002.safetensors"
    shard.unlink()
    shard.mkdir()
    refused(folder, shard.name, "not in the folder")
    shard.rmdir()
    shard.symlink_to("/dev/zero")
    refused(folder, shard.name, "leaves the model folder")
    shard.unlink()
    shard.touch()
    refused(folder, shard.name, "too short")


def test_refuses_json_that_is_too_long_without_reading_it(tmp_path):
    for name in ("config.json", INDEX):
        folder = make_checkpoint(tmp_path / name, shards=1)
        os.truncate(folder / name, 10**11)
        refused(folder, name, "too long")


def test_links_must_stay_in_the_folder(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    (folder / "inside.json").symlink_to("tokenizer.json")
    assert Checkpoint.open(folder).read_file("inside.json") == (folder / "tokenizer.json").read_bytes()
    (tmp_path / "secret").write_text("secret")
    for target, named in (
        ("../secret", "leaves"),
        (str(tmp_path / "secret"), "leaves"),
        ("nothing", "broken"),
    ):
        (folder / "link").symlink_to(target)
        refused(folder, "link", named)
        (folder / "link").unlink()
    (folder / "link").symlink_to("link")
    refused(folder, "link")
    (folder / "link").unlink()
    (folder / "link").symlink_to("assets")
    refused(folder, "link", "link to a folder")


def test_a_shard_may_not_be_a_link_out_of_the_folder(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to("../elsewhere.safetensors")
    refused(folder, "model.safetensors", "leaves the model folder")


def hub_snapshot(tmp_path: Path) -> Path:
    """A model laid out as in the Hub's cache: links into blobs."""
    plain = make_checkpoint(tmp_path / "plain", shards=2)
    repository = tmp_path / "hub" / "models--org--tiny"
    snapshot = repository / "snapshots" / "0123abc"
    (repository / "blobs").mkdir(parents=True)
    for number, (name, data) in enumerate(content(plain).items()):
        (repository / "blobs" / f"{number:040}").write_bytes(data)
        path = snapshot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(os.path.relpath(repository / "blobs" / f"{number:040}", path.parent))
    return snapshot


def test_snapshots_of_the_hub_cache_are_links_into_blobs(tmp_path):
    snapshot = hub_snapshot(tmp_path)
    checkpoint = Checkpoint.open(snapshot)
    assert {name: bytes(checkpoint.read_file(name)) for name in checkpoint.files} == content(tmp_path / "plain")
    (tmp_path / "hub" / "models--org--tiny" / "token").write_text("secret")
    (snapshot / "README.md").symlink_to("../../token")
    refused(snapshot, "README.md", "leaves")


def test_such_links_are_refused_outside_the_hub_layout(tmp_path):
    snapshot = hub_snapshot(tmp_path)
    (tmp_path / "hub" / "models--org--tiny").rename(tmp_path / "hub" / "copied")
    refused(tmp_path / "hub" / "copied" / "snapshots" / snapshot.name, "leaves")


def test_a_fifo_is_refused_without_waiting_for_it(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    os.mkfifo(folder / "pipe")
    refused(folder, "pipe", "neither a file nor a folder")
    (folder / "pipe").unlink()
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "model.safetensors")


def test_file_names_must_be_text(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    with open(os.fsencode(folder) + b"/bad\xff", "wb"):  # noqa: PTH123
        refused(folder, "file name")


def test_notices_shards_that_change_after_opening(tmp_path):
    folder = make_checkpoint(tmp_path / "m")
    checkpoint = Checkpoint.open(folder)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    with pytest.raises(UsageError, match="changed"):
        checkpoint.read("model.scale")


def test_unknown_tensors_and_packed_dtypes_are_named(tmp_path):
    folder = make_checkpoint(tmp_path / "m", extras=False)
    header = b'{"q.blocks":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"ab")
    checkpoint = Checkpoint.open(folder)
    with pytest.raises(UnsupportedError, match=r"q\.blocks"):
        checkpoint.read("q.blocks")
    assert b"".join(checkpoint.raw("q.blocks")) == b"ab"
    with pytest.raises(UsageError, match="nothing_here"):
        checkpoint.read("nothing_here")


def test_a_config_that_cannot_be_written_again_is_refused(tmp_path):
    folder = make_checkpoint(tmp_path / "source")
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"a": "\u00e9 \\ud800",', 1), encoding="utf-8")
    with pytest.raises(UsageError, match=r"config\.json: .*is no valid Unicode"):
        Checkpoint.open(folder)
