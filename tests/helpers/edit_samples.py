"""Edits for the tests of the engine, small enough to say what they must give."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.checkpoint.tensor.storage import Matrix, Plain


@dataclass(frozen=True)
class Map:
    """`x -> x - left (right^T x) + constant`."""

    left: NDArray[np.float64]
    right: NDArray[np.float64]
    constant: NDArray[np.float64] | None = None


def along(source: Checkpoint, name: str, axis: int, stream_map: Map | None) -> EditedTensor:
    """A map on one plain tensor."""
    info = source.tensors[name]
    storage = Plain(name, info.dtype, info.shape, axis)
    return EditedTensor(
        source=storage, target=storage, map=stream_map, along_rows=Matrix.of(info.shape, axis).along_rows
    )


def adding(source: Checkpoint, names: Iterable[str], number: float = 1.0) -> list[EditedTensor]:
    """Edits that add a number to every entry of some tensors."""
    edits = []
    for name in names:
        width = source.tensors[name].shape[-1]
        nothing = np.zeros((width, 1))
        edits.append(along(source, name, -1, Map(nothing, nothing, np.full(width, number))))
    return edits


def random_map(width: int, rank: int, seed: int, constant: bool = False) -> Map:
    """A map with factors of its own on either side."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((2, width, rank)) / width**0.5
    return Map(left, right, rng.standard_normal(width) if constant else None)


def floating(source: Checkpoint) -> list[str]:
    """The tensors that `adding` can edit."""
    return [name for name, info in source.tensors.items() if info.dtype in STORED and info.shape]
