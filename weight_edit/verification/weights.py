"""Completeness in the weights: each edited tensor against the formula applied again, and what is left of V^T W."""

from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.baking import Baking
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.progress import bar


@dataclass(frozen=True)
class WeightCheck:
    """What re-reading the edited tensors showed.

    Attributes:
        compared: number of edited tensors.
        different: names of those that are not, bit for bit, the formula applied to the base's.
        left: largest |V^T W'| / |V^T W| over the writers of the stream, after rounding; V is the direction that the
            writer is projected by (behind a norm: the gain-weighted one).
        left_where: that writer's tensor.
    """

    compared: int
    different: tuple[str, ...]
    left: float
    left_where: str


def check_weights(baking: Baking, edited: Checkpoint) -> WeightCheck:
    """Compare every edited tensor of a checkpoint with the edit laid out in `baking`."""
    base = baking.checkpoint
    edits = baking.tensor_edits()
    directions = {
        baking.disk.names[edit.writer.weight]: (edit.map.right, edit.writer.axis) for edit in baking.plan.edits
    }
    different, left, where = [], 0.0, ""
    with bar("weights", len(edits)) as progress:
        for name, change in edits.items():
            if name not in edited.tensors:
                different.append(name)
                continue
            before, after = base.read(name), edited.read(name)
            wanted = change(before)
            if after.shape != wanted.shape or after.dtype != wanted.dtype or not _same_bits(after, wanted):
                different.append(name)
            if name in directions and after.shape == before.shape:
                vectors, axis = directions[name]
                share = _component(after, vectors, axis) / _component(before, vectors, axis)
                if not share <= left:
                    left, where = share, name
            progress.advance()
    return WeightCheck(len(edits), tuple(different), left, where)


def _component(weight: Tensor, vectors: Tensor, axis: int) -> float:
    """|V^T W|, of the vectors of a tensor along an axis."""
    return max(float((weight.movedim(axis, -1).float() @ vectors).norm()), torch.finfo(torch.float32).tiny)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
