"""The edit of one tensor on disk: map and axis, gains before it and lengths after it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weight_edit.edits.low_rank import LowRankMap
from weight_edit.utils.arrays import Floats, as_float64

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class TensorEdit:
    """A map applied along one axis of a tensor on disk.

    It is plain data, so that a checkpoint can be edited block by block without torch. The constant is part of it
    whatever the tensor's rank: where none belongs, as in a weight, the map is a `LowRankMap.linear`.

    Attributes:
        map: on vectors of the residual stream.
        axis: along which those vectors lie; 0 for a bias.
        gains: float64, shape (d_model,), may be given as a torch tensor: each vector is multiplied by it, entry by
            entry, before the map. A norm's gain is so moved into its readers, and gains of zero with a constant
            set a tensor to that.
        keep_norms: each vector is brought back to the length that it had, after the map. One of which the map leaves
            nothing (less than `utils.arrays.VANISHED` of its length) becomes zero.

    Raises:
        ValueError: gains of another width or not finite; lengths that are to be kept beside gains or a constant.
    """

    map: LowRankMap
    axis: int
    gains: Floats | None = None
    keep_norms: bool = False

    def __post_init__(self) -> None:
        if self.gains is not None:
            object.__setattr__(self, "gains", as_float64(self.gains))
            if self.gains.shape != (self.map.width,) or not np.isfinite(self.gains).all():
                raise ValueError(f"gains {self.gains.shape} must be ({self.map.width},) finite numbers")
        if self.keep_norms and (self.gains is not None or self.map.constant is not None):
            raise ValueError("keep_norms goes with neither gains nor a constant: they change the lengths on purpose")

    def __call__(self, tensor: "Tensor") -> "Tensor":
        """The edited torch tensor, dtype and shape unchanged; see `LowRankMap.on_stored`.

        Raises:
            ValueError: when the tensor is not d_model wide along the axis.
        """
        return self.map.on_stored(tensor, self.axis, gains=self.gains, keep_norms=self.keep_norms)


def same_edit(a: TensorEdit, b: TensorEdit) -> bool:
    """Whether two edits have the same effect on a tensor."""
    if a is b or (a.map is b.map and (a.axis, a.keep_norms) == (b.axis, b.keep_norms) and a.gains is b.gains):
        return True
    pairs = [(a.map.left, b.map.left), (a.map.right, b.map.right), (a.map.constant, b.map.constant), (a.gains, b.gains)]
    return (a.axis, a.keep_norms) == (b.axis, b.keep_norms) and all(
        (x is None and y is None) or (x is not None and y is not None and np.array_equal(x, y)) for x, y in pairs
    )
