"""The edited tensors of a baking as streams of bytes, to hold a checkpoint on disk against."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.baking import Baking
from weight_edit.checkpoint.edited import Edited
from weight_edit.checkpoint.storage import Matrix, Plain
from weight_edit.edits import LowRankMap


@dataclass(frozen=True, eq=False)
class Factors:
    """A map's float64 factors, shapes (d, k), and its constant of shape (d,) or None."""

    left: NDArray[np.float64]
    right: NDArray[np.float64]
    constant: NDArray[np.float64] | None = None


def edited_tensors(baking: Baking) -> list[Edited]:
    """Every tensor that the edit writes, with the map that makes it."""
    disk, plan, anatomy = baking.disk.names, baking.plan, baking.anatomy
    maps: dict[str, tuple[LowRankMap, int]] = {}
    for edit in plan.edits:
        writer = edit.writer
        maps[disk[writer.weight]] = (edit.map, writer.axis)
        if writer.bias is not None:
            maps[disk[writer.bias]] = (edit.map, 0)
        if writer.norm is not None and writer.norm.bias is not None:
            maps[disk[writer.norm.bias]] = (plan.stream_map, 0)
    embedding, unembedding = disk[anatomy.embedding_weight], disk.get(anatomy.unembedding_weight)
    if plan.tied_map is not None and unembedding is not None:
        # A tied checkpoint that stores both copies keeps them equal.
        maps[unembedding] = maps[embedding]
    edits = [_edited(baking, name, name, map, axis) for name, (map, axis) in maps.items()]
    # An unembedding of its own has the numbers that the embedding had.
    return [*edits, *(_edited(baking, embedding, name, None, 0) for name in baking.added_names)]


def _edited(baking: Baking, source: str, target: str, map: LowRankMap | None, axis: int) -> Edited:
    info = baking.checkpoint.tensors[source]
    before = Plain(source, info.dtype, info.shape, axis)
    after = Plain(target, info.dtype, info.shape, axis)
    factors = None if map is None else _factors(map)
    return Edited(before, after, factors, Matrix.of(info.shape, axis).along_rows)


def _factors(map: LowRankMap) -> Factors:
    left, right = (np.asarray(factor, dtype=np.float64) for factor in (map.left, map.right))
    return Factors(left, right, None if map.constant is None else np.asarray(map.constant, dtype=np.float64))
