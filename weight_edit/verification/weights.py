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
        different: names of those that are not the formula applied to the base's, up to the rounding of float32
            arithmetic and one unit in the last place of the storage dtype: processors differ by as much in the order
            of their sums.
        exact: number of tensors that are the formula's bit for bit, which all are on one machine.
        left: largest |V^T W'| / |V^T W| over the writers of the stream, after rounding; V is the direction that the
            writer is projected by (behind a norm: the gain-weighted one). A writer that has less along V than along
            a random direction is measured against the latter.
        left_where: that writer's tensor.
    """

    compared: int
    different: tuple[str, ...]
    exact: int
    left: float
    left_where: str


def check_weights(baking: Baking, edited: Checkpoint) -> WeightCheck:
    """Compare every edited tensor of a checkpoint with the edit laid out in `baking`."""
    base = baking.checkpoint
    edits = baking.tensor_edits()
    directions = {
        baking.disk.names[edit.writer.weight]: (torch.from_numpy(edit.map.right).float(), edit.writer.axis)
        for edit in baking.plan.edits
    }
    different, exact, left, where = [], 0, 0.0, ""
    with bar("weights", len(edits)) as progress:
        for name, change in edits.items():
            if name not in edited.tensors:
                different.append(name)
                continue
            before, after = base.read(name), edited.read(name)
            wanted = change(before)
            if after.shape != wanted.shape or after.dtype != wanted.dtype:
                different.append(name)
            elif _same_bits(after, wanted):
                exact += 1
            elif not _same_value(after, wanted):
                different.append(name)
            if name in directions and after.shape == before.shape:
                vectors, axis = directions[name]
                share = _left(before, after, vectors, axis)
                if not share <= left:
                    left, where = share, name
            progress.advance()
    return WeightCheck(len(edits), tuple(different), exact, left, where)


def _left(before: Tensor, after: Tensor, vectors: Tensor, axis: int) -> float:
    """|V^T W'| against |V^T W|, or against what a random V of its rank would have of W."""

    def along(weight: Tensor) -> float:
        return float((weight.movedim(axis, -1).float() @ vectors).norm())

    width, rank = vectors.shape
    expected = float(before.float().norm()) * (rank / width) ** 0.5
    reference = max(along(before), expected)
    return along(after) / reference if reference else 0.0


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def _same_value(given: Tensor, wanted: Tensor) -> bool:
    """Equal up to one unit in the last place, and up to what float32 sums leave beside the largest entries."""
    exact = torch.float64 if wanted.dtype == torch.float64 else torch.float32
    a, b = given.to(exact), wanted.to(exact)
    unit = b.abs() * torch.finfo(wanted.dtype).eps
    arithmetic = 8 * torch.finfo(exact).eps * b.abs().max()
    return bool(((a - b).abs() <= unit + arithmetic).all())
