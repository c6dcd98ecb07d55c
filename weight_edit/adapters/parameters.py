"""The numbers of a checkpoint's parameters, a stack of experts one matrix at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.checkpoint.quantized.values import values_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import STORED


@dataclass(frozen=True)
class Parameters:
    """The parameters of a checkpoint as transformers loads them, unedited, read when they are asked for."""

    checkpoint: Checkpoint
    disk: DiskNames

    def whole(self, parameter: str) -> Tensor:
        """One parameter in its stored dtype; in float32 where it is quantised.

        Raises:
            UnsupportedError: it lies on disk in parts.
        """
        name, axes = self.disk.whole(parameter)
        return self._tensor(name).permute(axes)

    def matrices(self, parameter: str, ndim: int) -> Iterator[Tensor]:
        """The matrices of a stack in their order, also where each is a tensor of its own; of a matrix, itself.

        Args:
            ndim: how many axes the parameter has, 2 or 3.

        Raises:
            UnsupportedError: it lies on disk in another way.
        """
        pieces = self.disk.pieces(parameter)
        if ndim == 3 and pieces and all(piece.axes[0] is None and None not in piece.axes[1:] for piece in pieces):
            for piece in pieces:
                yield self._tensor(piece.name).permute([axis for axis in piece.axes if axis is not None])
            return
        whole = self.whole(parameter)
        yield from whole if ndim == 3 else (whole,)

    def _tensor(self, name: str) -> Tensor:
        if name in self.checkpoint.tensors and self.checkpoint.info(name).dtype in STORED:
            return self.checkpoint.read(name)
        # Codes without their scales are other numbers.
        return torch.from_numpy(values_of(self.checkpoint, name))
