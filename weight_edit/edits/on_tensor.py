"""An edit of one tensor on disk: which map, and along which of its axes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from weight_edit.edits.low_rank import LowRankMap

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorEdit:
    """This map along this axis of a tensor on disk.

    It is plain data, so that a checkpoint can be edited block by block without torch. The constant is part of it
    whatever the tensor's rank: where none belongs, as in a weight, the map is a `LowRankMap.linear`.

    Attributes:
        map: on vectors of the residual stream.
        axis: along which those vectors lie; 0 for a bias.
    """

    map: LowRankMap
    axis: int

    def __call__(self, tensor: "Tensor") -> "Tensor":
        """The edited torch tensor, in the dtype and shape of the one given; see `LowRankMap.on_stored`.

        Raises:
            ValueError: when the tensor is not d_model wide along the axis.
        """
        return self.map.on_stored(tensor, self.axis)
