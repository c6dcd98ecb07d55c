"""Stacks of experts are read one matrix at a time, whatever they are stored as."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from weight_edit.adapters.parameters import Parameters
from weight_edit.checkpoint.quantized.values import slabs_of, values_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint

EXPERTS, ROWS, COLS = 24, 256, 256


@pytest.fixture
def stack(tmp_path: Path) -> Checkpoint:
    """A checkpoint of one stack of 6 MB."""
    experts = np.random.default_rng(0).standard_normal((EXPERTS, ROWS, COLS), dtype=np.float32)
    save_file({"experts": experts}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return Checkpoint.open(tmp_path)


def peak(matrices: Iterator[Any]) -> int:
    """The most bytes that a pass over the matrices takes beside what was there."""
    tracemalloc.start()
    for _ in matrices:
        pass
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_a_stack_is_never_whole_in_memory(stack: Checkpoint) -> None:
    """As a file of numbers, and as one of codes: those take the way of a GGUF file's too."""
    disk: Any = SimpleNamespace(pieces=lambda name: (), whole=lambda name: (name, (0, 2, 1)))
    parameters = Parameters(stack, disk)
    wanted = values_of(stack, "experts")
    for turned, expert in zip(parameters.matrices("experts", 3), wanted, strict=True):
        assert np.array_equal(turned.numpy(), expert.T)
    for found, expert in zip(slabs_of(stack, "experts"), wanted, strict=True):
        assert np.array_equal(found, expert)
    del wanted
    whole = 4 * EXPERTS * ROWS * COLS
    assert peak(parameters.matrices("experts", 3)) < whole / 4
    # A strip of a matrix is decoded in float64.
    assert peak(slabs_of(stack, "experts")) < whole / 2
