"""Differences of two model folders apart from tensors: other files, architectures, widths."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from weight_edit.checkpoint.files import CHUNK
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.reading import Files

_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "model_dim")
_INSIDE = ("text_config", "llm_config", "language_config", "thinker_config")


@dataclass(frozen=True)
class FileDifference:
    """Sorted file names by comparison; loaded weights and their index are left out."""

    equal: tuple[str, ...]
    different: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compare_files(a: Files, b: Files) -> FileDifference:
    """The byte-wise comparison of all files other than weights.

    Raises:
        UsageError: one cannot be read.
    """
    ours, theirs = _names(a), _names(b)
    equal: list[str] = []
    different: list[str] = []
    for name in sorted(ours & theirs):
        (equal if _same(a, b, name) else different).append(name)
    return FileDifference(tuple(equal), tuple(different), tuple(sorted(ours - theirs)), tuple(sorted(theirs - ours)))


def _names(side: Files) -> set[str]:
    checkpoint = side.checkpoint
    return set(checkpoint.files) - {*checkpoint.shards, checkpoint.index_file or ""}


def _same(a: Files, b: Files, name: str) -> bool:
    size = a.size(name)
    if size != b.size(name):
        return False
    for begin in range(0, size, CHUNK):
        ours, theirs = (np.empty(min(CHUNK, size - begin), np.uint8) for _ in range(2))
        a.read(name, begin, ours)
        b.read(name, begin, theirs)
        if not np.array_equal(ours, theirs):
            return False
    return True


def notes_on(names: tuple[str, ...], a: Checkpoint, b: Checkpoint, width: int | None) -> Iterator[str]:
    """One line for each reason why the comparison is incomplete."""
    if names[0] != names[1]:
        yield f"the architectures differ: {names[0]} and {names[1]}"
    if not a.tensors.keys() & b.tensors.keys():
        yield "the two have no tensor of the same name"
    if width is None:
        yield "the config does not say how wide the residual stream is, so shared directions were not looked for"
    elif stream_width(b) != width:
        yield f"the residual streams are {width} and {stream_width(b)} wide"


def architecture_of(side: Checkpoint) -> str:
    """The model's class name, or its model type; of a GGUF model llama.cpp's name."""
    if side.gguf is not None:
        return side.gguf.architecture
    named = side.config.get("architectures")
    return str(named[0] if isinstance(named, list) and named else side.config.get("model_type", "unknown"))


def stream_width(side: Checkpoint) -> int | None:
    """The residual stream's width by a config or a GGUF header; None if it does not say."""
    if side.gguf is None:
        return width_of(side.config)
    said = side.gguf.values.get(f"{side.gguf.architecture}.embedding_length")
    return said if type(said) is int and said > 0 else None


def width_of(config: Mapping[str, Any]) -> int | None:
    """The residual stream's width by a config or its text part; None if it does not say."""
    for part in (config, *(config.get(key) for key in _INSIDE)):
        if isinstance(part, Mapping):
            for key in _WIDTHS:
                if type(part.get(key)) is int and part[key] > 0:
                    return int(part[key])
    return None
