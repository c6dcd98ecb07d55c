"""The weights that transformers loads, by names alone, and what else of a repository is the model."""

import json

import pytest
import torch
from safetensors.torch import save_file
from transformers.modeling_utils import _get_resolved_checkpoint_files

from tests.helpers.checkpoint_samples import make_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.choice import Chosen, choose, is_weights, small_files
from weight_edit.errors import UsageError

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def index(*shards: str) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {f"t{i}": shard for i, shard in enumerate(shards)}}).encode()


def chosen(files, config=None, content=b""):
    return choose(config or {}, files, lambda name: content, "org/model")


def test_single_file_before_index_and_the_config_before_both():
    assert chosen(["model.safetensors", INDEX, *SHARDS]) == Chosen(("model.safetensors",))
    assert chosen([INDEX, *SHARDS], content=index(*SHARDS)).shards == SHARDS
    named = {"transformers_weights": "consolidated.safetensors"}
    assert chosen(["model.safetensors", "consolidated.safetensors"], named).shards == ("consolidated.safetensors",)
    other = {"transformers_weights": "b.safetensors.index.json"}
    found = chosen(["model.safetensors", "b.safetensors.index.json", *SHARDS], other, index(*SHARDS))
    assert (found.index_file, found.shards) == ("b.safetensors.index.json", SHARDS)


def test_an_index_must_name_files_that_are_there():
    with pytest.raises(UsageError, match=r"model-00002-of-00002\.safetensors.*not in the folder"):
        chosen([INDEX, SHARDS[0]], content=index(*SHARDS))


def test_variants_are_not_loaded_by_default():
    files = ["model.fp16.safetensors", "config.json"]
    with pytest.raises(UsageError, match=r"model\.fp16\.safetensors, which transformers does not load.*transformers_w"):
        chosen(files)


def second_copies(folder):
    """Everything that repositories are known to have beside the weights."""
    tensors = {"one": torch.ones(1)}
    for name in (
        "model.fp16.safetensors",
        "model-00001-of-00002.fp16.safetensors",
        "consolidated.safetensors",
        "original/model.safetensors",
        "adapter_model.safetensors",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        save_file(tensors, folder / name)
    for name in (
        "consolidated.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "original/consolidated.00.pth",
        "pytorch_model-00001-of-00001.bin",
        "pytorch_model.bin.index.json",
        "metal/model.bin",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "model-q4.gguf",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")


@pytest.mark.parametrize("shards", [0, 2])
@pytest.mark.parametrize("both", [False, True])
def test_the_choice_is_that_of_transformers_and_every_second_copy_is_said(tmp_path, shards, both):
    folder = make_checkpoint(tmp_path / "m", shards=shards, extras=False)
    if both:
        save_file({"other": torch.ones(1)}, folder / "model.safetensors")
        (folder / INDEX).write_bytes(index("model.safetensors"))
    before = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    second_copies(folder)
    (folder / "adapter_config.txt").write_text("")
    checkpoint = Checkpoint.open(folder)
    loaded, _ = _get_resolved_checkpoint_files(str(folder), None, None, None, None, False)
    assert [str(folder / shard) for shard in checkpoint.shards] == loaded
    added = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - before
    unread = before - {*checkpoint.shards, checkpoint.index_file, "config.json"}
    assert set(checkpoint.other_weights) == added - {"adapter_config.txt"} | unread


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("model.safetensors", True),
        ("a/b.pth", True),
        ("model.safetensors.index.json", True),
        ("model.safetensors.index.fp16.json", True),
        ("pytorch_model.bin.index.json", True),
        ("config.json", False),
        ("tokenizer.model", False),
        ("book.index.json", False),
    ],
)
def test_what_looks_like_weights(name, weights):
    assert is_weights(name) is weights


def test_small_files_are_the_models_and_not_those_of_second_copies():
    ours = [".gitattributes", "LICENSE", "README.md", "chat_template.jinja", "config.json", "merges.txt"]
    ours += ["modeling_x.py", "sub/preprocessor_config.json", "tekken.json", "tokenizer.model.v3", "vocab.spm"]
    others = ["original/params.json", "onnx/config.json", "consolidated.safetensors.index.json", "assets/plot.PNG"]
    others += [*SHARDS, "pytorch_model.bin", "training.parquet", ".cache/x.json", "metal/notes.txt"]
    assert small_files([*others, *ours, INDEX], None) == tuple(sorted(ours))
    assert small_files([*others, *ours, INDEX], Chosen(SHARDS, INDEX)) == tuple(sorted([*ours, INDEX]))
