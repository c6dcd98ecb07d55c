"""Damaged checkpoints are opened and copied rightly or refused in one line, and leave nothing behind."""

import json
import os
import shutil
import stat

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize

from tests.helpers.checkpoint_samples import BASE_TENSORS, content, make_checkpoint
from tests.helpers.edit_samples import adding, floating
from tests.helpers.mutations import CHANGES, mutate, time_limit, write
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.rewrite.output import staged
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.refused import check_format
from weight_edit.errors import UnsupportedError, WeightEditError

CASES = int(os.environ.get("WEIGHT_EDIT_FUZZ", "400"))
"""How many damaged checkpoints are opened; the same ones every time."""
SECONDS = 10

FILES = ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"]
PIECES = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"../",
    b"/",
    b"-1",
    b"1e9",
    b"null",
]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("pristine") / "m", shards=2)


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(FILES),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 30), st.sampled_from(PIECES) | st.binary(max_size=2)),
        max_size=3,
    ),
    st.integers(0, 40),
)
def test_no_damage_causes_a_traceback_or_a_half_written_folder(tmp_path_factory, pristine, file, changes, cut):
    root = tmp_path_factory.mktemp("damaged")
    folder = shutil.copytree(pristine, root / "m")
    raw = (folder / file).read_bytes()
    for place, length, put in changes:
        at = int(place * min(len(raw), 1200))
        raw = raw[:at] + put + raw[at + length :]
    (folder / file).write_bytes(raw[: len(raw) - cut])
    before = content(root)
    try:
        source = Checkpoint.open(folder)
        with staged(root / "out") as out:
            rewrite(source, out, adding(source, floating(source), 0.0))
    except WeightEditError as error:
        message = str(error)
    else:
        message = ""
        edits = adding(source, floating(source), 0.0)
        assert check_integrity(source, root / "out", edits=edits).problems == ()
        shutil.rmtree(root / "out")
    assert message.isprintable()
    assert content(root) == before
    shutil.rmtree(root)


def eight_bits():
    """Tensors and config of a checkpoint in FP8 blocks."""
    tensors = dict(BASE_TENSORS)
    tensors["model.layers.0.out.weight"] = BASE_TENSORS["model.layers.0.out.weight"].to(torch.float8_e4m3fn)
    tensors["model.layers.0.out.weight_scale_inv"] = torch.ones(2, 1)
    return tensors, {"quant_method": "fp8", "weight_block_size": [2, 4]}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Small real checkpoints as files: a single one, a sharded one, one in FP8 with a second copy."""
    root = tmp_path_factory.mktemp("samples")
    tensors, stored = eight_bits()
    folders = [
        make_checkpoint(root / "single", extras=False),
        make_checkpoint(root / "sharded", shards=2, extras=False),
        make_checkpoint(root / "eight", tensors, shards=1),
    ]
    config = json.loads((folders[2] / "config.json").read_text()) | {"quantization_config": stored}
    (folders[2] / "config.json").write_text(json.dumps(config))
    return [content(folder) for folder in folders]


def listing(root):
    """Everything below a folder as it lies there: what it is, and what is in it or where it leads."""
    found = {}
    for path in sorted(root.rglob("*")):
        mode = stat.S_IFMT(path.lstat().st_mode)
        data = path.read_bytes() if stat.S_ISREG(mode) else str(path.readlink()) if stat.S_ISLNK(mode) else b""
        found[str(path)] = (mode, data)
    return found


def read_everything(folder):
    """Open a checkpoint and read all of it: whether that went well, and the messages of refusals."""
    try:
        checkpoint = Checkpoint.open(folder)
        check_format(checkpoint.config, checkpoint.tensors)
    except WeightEditError as error:
        return False, [str(error)]
    messages = []
    for shard in checkpoint.shards:
        reference = dict(deserialize(bytes(checkpoint.read_file(shard))))
        assert reference.keys() == {info.name for info in checkpoint.headers[shard].tensors}
        for info in checkpoint.headers[shard].tensors:
            theirs = reference[info.name]
            assert (theirs["dtype"], tuple(theirs["shape"])) == (info.dtype, info.shape)
            assert b"".join(checkpoint.raw(info.name)) == bytes(theirs["data"])
            for read in (checkpoint.read, checkpoint.values):
                try:
                    assert tuple(read(info.name).shape) == info.shape
                except UnsupportedError as error:
                    messages.append(str(error))
    return True, messages


@pytest.mark.parametrize("part", range(4))
def test_every_damaged_checkpoint_is_read_as_safetensors_reads_it_or_refused_in_one_line(tmp_path, samples, part):
    outcomes = set()
    for seed in range(part, CASES, 4):
        root = tmp_path / str(seed)
        folder = write(root / "m", samples[seed % len(samples)])
        what = f"seed {seed}: {mutate(folder, seed)}"
        before = listing(root)
        print(what)  # pytest shows the last one, where it failed
        with time_limit(SECONDS):
            opened, messages = read_everything(folder)
        assert all(message.isprintable() and len(message) < 1500 for message in messages), what
        assert listing(root) == before, what
        outcomes.add(opened)
        shutil.rmtree(root)
    assert outcomes == {True, False}


def test_the_same_seed_does_the_same_damage_and_every_kind_of_damage_comes(tmp_path, samples):
    said = ""
    for seed in range(120):
        one, two = (write(tmp_path / str(seed) / side, samples[1]) for side in "ab")
        what = mutate(one, seed)
        assert mutate(two, seed) == what
        assert [(*found,) for found in listing(one).values()] == [(*found,) for found in listing(two).values()]
        said += what
    assert all(change.__name__ in said for change in CHANGES)
