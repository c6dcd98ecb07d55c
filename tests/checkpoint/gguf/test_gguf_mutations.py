"""Damaged GGUF files are read as the package gguf reads them and rewritten rightly, or refused in one line.

`benchmarks/fuzz_gguf.py` does the same for thousands of them, through the command line.
"""

import os
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from tests.helpers.checkpoint_samples import content, scaled
from tests.helpers.gguf_files import mixed_entries, mixed_tensors
from tests.helpers.gguf_mutations import BYTES, SAYS, File, mutated
from tests.helpers.mutations import time_limit
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.errors import UnsupportedError, WeightEditError

CASES = int(os.environ.get("WEIGHT_EDIT_GGUF_FUZZ", "400"))
"""How many damaged files are opened; the same ones every time."""

SECONDS = 10
MOST_MEMORY = 16 << 20
"""Bytes that opening a file of some hundred kilobytes may take."""


@pytest.fixture(scope="module")
def sample() -> File:
    return File(list(mixed_entries().items()), list(mixed_tensors().items()))


def check_same(checkpoint: Checkpoint, path: Path) -> None:
    """The tensors are those of the package's reader, where that one reads the file at all."""
    try:
        reader = gguf.GGUFReader(path)
    except Exception:  # noqa: BLE001 - it raises whatever numpy does
        return
    theirs = {each.name: (int(each.data_offset), int(each.n_bytes)) for each in reader.tensors}
    assert theirs == {info.name: (info.begin, info.size) for info in checkpoint.tensors.values()}


def treat(root: Path) -> str:
    """Open a damaged file, read and rewrite it, and say how it was refused; empty where it was not."""
    path = root / "m.gguf"
    before = content(root)
    tracemalloc.start()
    try:
        checkpoint = Checkpoint.open(path)
    except WeightEditError as error:
        return str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert content(root) == before
        assert peak < MOST_MEMORY
    check_same(checkpoint, path)
    plain = []
    for name in checkpoint.tensors:
        if checkpoint.tensors[name].dtype not in STORED:
            with pytest.raises(UnsupportedError, match="is stored as"):
                checkpoint.values(name)
        elif np.abs(checkpoint.values(name)).max() < 1000:
            plain.append(name)
    (root / "out").mkdir()
    edits = scaled(checkpoint, [name for name in plain if checkpoint.tensors[name].shape[-1] < 300], 2.0)
    try:
        rewrite(checkpoint, root / "out", edits)
    except WeightEditError as error:
        return str(error)
    assert check_integrity(checkpoint, root / "out", edits=edits).problems == ()
    return ""


def printable_line(message: str) -> bool:
    return message.isprintable() and len(message) < 1000


@pytest.mark.parametrize("part", range(4))
def test_every_damaged_file_is_read_rightly_or_refused_in_one_line(tmp_path: Path, sample: File, part: int) -> None:
    refused = set()
    for seed in range(part, CASES, 4):
        root = tmp_path / str(seed)
        root.mkdir()
        raw, how = mutated(sample, seed)
        (root / "m.gguf").write_bytes(raw)
        print(f"seed {seed}: {how}")  # pytest shows the last one, where it failed
        with time_limit(SECONDS), np.errstate(all="ignore"):
            message = treat(root)
        assert printable_line(message) or not message, how
        assert "m.gguf" in message or "tensor" in message or not message, message
        refused.add(bool(message))
    assert refused == {True, False}


def test_the_same_seed_does_the_same_damage_and_every_kind_of_damage_comes(sample: File) -> None:
    found = [mutated(sample, seed) for seed in range(200)]
    assert found == [mutated(sample, seed) for seed in range(200)]
    said = " ".join(how for _, how in found)
    assert all(change.__name__ in said for change in [*SAYS, *BYTES])
    assert sum(raw != sample.content() for raw, _ in found) > 190
