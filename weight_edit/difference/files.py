"""Which files of two model folders differ, weights apart: those are compared tensor by tensor."""

from dataclasses import dataclass

import numpy as np

from weight_edit.checkpoint.files import CHUNK
from weight_edit.checkpoint.reading import Files


@dataclass(frozen=True)
class FileDifference:
    """Names of files, sorted; the weights that transformers loads and their index are left out."""

    equal: tuple[str, ...]
    different: tuple[str, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]


def compare_files(a: Files, b: Files) -> FileDifference:
    """Compare the files beside the weights, byte for byte.

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
