"""Many small tensors added to a checkpoint: where they go, that they are found, and that every byte is checked."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.checkpoint_samples import BASE_TENSORS, bits, data_start, flip, make_checkpoint
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.integrity import tensor_pairs as walking
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.manifest import write_manifest
from weight_edit.checkpoint.rewrite.planning import ADDED_SHARD, AddedTensor
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES
from weight_edit.errors import UnsupportedError, UsageError

INDEX = "model.safetensors.index.json"
DTYPES = ("BF16", "F32", "F16", "F64")
COPIED = next(name for name, tensor in BASE_TENSORS.items() if tensor.ndim == 2 and tensor.numel())


def biases(layers: int = 60) -> dict[str, AddedTensor]:
    """One for each layer, of zeros and of numbers in turn, in all dtypes; and a copy of a tensor of the base."""
    random = np.random.default_rng(0)
    made = {
        f"model.layers.{n}.mlp.down_proj.bias": AddedTensor.of(
            np.zeros(17) if n % 2 else random.standard_normal(17), DTYPES[n % 4]
        )
        for n in range(layers)
    }
    before = BASE_TENSORS[COPIED]
    dtype = next(name for name, known in TORCH_DTYPES.items() if known == before.dtype)
    return {**made, "copy.weight": AddedTensor(dtype, tuple(before.shape), COPIED)}


class Pair:
    def __init__(self, root: Path, shards: int, manifest: bool = False) -> None:
        self.base = Checkpoint.open(make_checkpoint(root / "base", shards=shards))
        self.out, self.added = root / "out", biases()
        self.out.mkdir()
        result = rewrite(self.base, self.out, added=self.added)
        if manifest:
            write_manifest(self.out, {}, result.files)
        self.shard = self.out / Checkpoint.open(self.out).tensors["copy.weight"].shard

    def problems(self) -> list[str]:
        report = check_integrity(self.base, self.out, added=self.added)
        assert report.ok == (not report.problems)
        return list(report.problems)

    def change(self, change) -> None:
        tensors = load_file(self.shard)
        save_file(change(tensors), self.shard, metadata={"format": "pt"})


@pytest.fixture(params=[0, 1, 3], ids=["single", "one-shard", "three-shards"])
def pair(request, tmp_path) -> Pair:
    return Pair(tmp_path, request.param)


def test_they_lie_in_one_shard_and_in_the_index(pair):
    edited = Checkpoint.open(pair.out)
    names = {edited.tensors[name].shard for name in pair.added}
    assert names == ({"model-00002-of-00002.safetensors"} if pair.base.index_file is None else {ADDED_SHARD})
    assert len(edited.shards) == len(pair.base.shards) + 1
    index = json.loads((pair.out / INDEX).read_text())
    assert {name: info.shard for name, info in edited.tensors.items()} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(info.size for info in edited.tensors.values())
    for name, tensor in pair.added.items():
        info = edited.tensors[name]
        assert (info.dtype, info.shape) == (tensor.dtype, tensor.shape)
        wanted = bits(BASE_TENSORS[COPIED]) if name == "copy.weight" else tensor.content
        assert bits(load_file(pair.shard)[name]) == wanted
    report = check_integrity(pair.base, pair.out, added=pair.added)
    assert report.problems == ()
    assert (report.tensors_added, report.tensors_equal) == (len(pair.added), len(pair.base.tensors))


@pytest.mark.parametrize("end", ["first", "last"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 59, "copy"])
def test_one_bit_of_an_added_tensor(pair, end, number):
    name = "copy.weight" if number == "copy" else f"model.layers.{number}.mlp.down_proj.bias"
    info = Checkpoint.open(pair.out).tensors[name]
    byte = 0 if end == "first" else info.size - 1
    flip(pair.shard, info.begin + byte)
    (problem,) = pair.problems()
    assert f"'{name}': is not what was to be added (first at its byte {byte})" in problem
    report = check_integrity(pair.base, pair.out, added=pair.added)
    assert (report.tensors_added, report.tensors_equal) == (len(pair.added) - 1, len(pair.base.tensors))
    # Of names alone nothing more is known than that there is such a tensor.
    assert check_integrity(pair.base, pair.out, added=list(pair.added)).ok


def test_a_large_one_is_compared_in_pieces_to_its_last_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(walking, "CHUNK", 64)
    pair = Pair(tmp_path, 2)
    assert pair.problems() == []
    info = Checkpoint.open(pair.out).tensors["model.layers.3.mlp.down_proj.bias"]
    flip(pair.shard, info.end - 1)
    assert f"(first at its byte {info.size - 1})" in "\n".join(pair.problems())


def test_a_number_that_is_not_finite_is_told_too(pair):
    pair.change(lambda tensors: {**tensors, "model.layers.1.mlp.down_proj.bias": torch.full((17,), float("nan"))})
    found = "\n".join(pair.problems())
    assert "'model.layers.1.mlp.down_proj.bias': has 17 NaN or infinite values" in found
    assert "'model.layers.1.mlp.down_proj.bias': is not what was to be added" in found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.float().double(), "the dtype is F64, the added tensor's F32"),
        (lambda t: t.reshape(1, 17), "the shape is [1, 17], the added tensor's [17]"),
        (lambda t: t[:16].clone(), "the shape is [16], the added tensor's [17]"),
    ],
)
def test_another_dtype_or_shape(pair, change, said):
    name = "model.layers.1.mlp.down_proj.bias"
    pair.change(lambda tensors: {**tensors, name: change(tensors[name])})
    assert any(f"'{name}': {said}" in problem for problem in pair.problems())
    assert check_integrity(pair.base, pair.out, added=pair.added).tensors_added == len(pair.added) - 1


def test_one_that_is_missing_is_named(pair):
    name = "model.layers.7.mlp.down_proj.bias"
    pair.change(lambda tensors: {key: value for key, value in tensors.items() if key != name})
    index = json.loads((pair.out / INDEX).read_text())
    del index["weight_map"][name]
    (pair.out / INDEX).write_text(json.dumps(index))
    assert any(f"'{name}': is listed as added but missing" in problem for problem in pair.problems())


def test_with_a_manifest_the_digest_says_it_too(tmp_path):
    pair = Pair(tmp_path, 3, manifest=True)
    assert pair.problems() == []
    flip(pair.shard, data_start(pair.shard))
    assert [problem.split(": ")[-1].split(" (")[0] for problem in pair.problems()] == [
        "is not what was to be added",
        "does not match the manifest's SHA-256",
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_rounded_once(dtype):
    numbers = np.random.default_rng(1).standard_normal((3, 5))
    added = AddedTensor.of(numbers, dtype)
    assert (added.dtype, added.shape, added.size) == (dtype, (3, 5), len(added.content))
    if dtype != "F16":
        wanted = torch.from_numpy(numbers).to(TORCH_DTYPES[dtype])
        assert added.content == bits(wanted if dtype != "BF16" else torch.from_numpy(numbers).float().bfloat16())
    else:
        assert added.content == numbers.astype(np.float16).tobytes()
    assert AddedTensor.of(np.zeros((0,)), dtype).content == b""


def test_what_cannot_be_added_is_refused():
    with pytest.raises(UsageError, match=r"as F16: its numbers go up to 7e\+04"):
        AddedTensor.of(np.array([1.0, 7e4]), "F16")
    with pytest.raises(UnsupportedError, match="as F8_E4M3; those that can be: BF16"):
        AddedTensor.of(np.ones(2), "F8_E4M3")
