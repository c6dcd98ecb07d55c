"""Damaged checkpoints are opened and copied rightly or refused in one line, and leave nothing behind."""

import shutil

import pytest
from checkpoint_samples import content, make_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from weight_edit.checkpoint.integrity import check_integrity
from weight_edit.checkpoint.output import staged
from weight_edit.checkpoint.rewrite import rewrite
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.errors import WeightEditError

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
        assert check_integrity(source, root / "out").problems == ()
        shutil.rmtree(root / "out")
    assert message.isprintable()
    assert content(root) == before
    shutil.rmtree(root)
