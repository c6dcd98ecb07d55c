"""Places in the residual stream, and hooks on them.

Points are named as the field names them: `resid_pre` is a block's input, `resid_mid` the stream between its
attention and its MLP, `resid_post` its output.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from weight_edit.errors import UsageError
from weight_edit.runtime.hooks import Hook
from weight_edit.runtime.loading import Model

KINDS = ("resid_pre", "resid_mid", "resid_post")


@dataclass(frozen=True)
class Point:
    """A place in the residual stream: its kind and block. Points sort in order of computation."""

    kind: Literal["resid_pre", "resid_mid", "resid_post"]
    layer: int

    def __str__(self) -> str:
        return f"{self.kind}.{self.layer}"

    def __lt__(self, other: "Point") -> bool:
        return (self.layer, KINDS.index(self.kind)) < (other.layer, KINDS.index(other.kind))


def all_points(model: Model) -> tuple[Point, ...]:
    """Every point that the model has; parallel blocks have no `resid_mid`."""
    return tuple(
        Point(kind, block.layer)
        for block in model.anatomy.blocks
        for kind in ("resid_pre", "resid_mid", "resid_post")
        if kind != "resid_mid" or block.mid is not None
    )


def hook_at(model: Model, point: Point, fn: Callable[[Tensor], Tensor]) -> Hook:
    """A hook on the stream at a point.

    What it returns at `resid_mid` is what the MLP reads, and the sum goes on without it.

    Raises:
        UsageError: the model has no such point.
    """
    if not 0 <= point.layer < model.anatomy.n_layers:
        raise UsageError(f"{point}: {model.source.name} has blocks 0 to {model.anatomy.n_layers - 1}")
    block = model.anatomy.blocks[point.layer]
    if point.kind == "resid_post":
        return Hook(block.module, "output", fn)
    if point.kind == "resid_pre":
        return Hook(block.module, "input", fn)
    if block.mid is None:
        raise UsageError(f"{point}: {block.module} is parallel, so its stream has no point between attention and MLP")
    return Hook(block.mid, "input", fn)
