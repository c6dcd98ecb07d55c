"""The numbers of a checkpoint's parameters, a stack of experts one matrix at a time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.checkpoint.quantized.values import slabs_of, values_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.reading import Files
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.checkpoint.tensor.torch_dtypes import to_tensor


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
        if ndim == 3:
            name, axes = self.disk.whole(parameter)
            if axes[0] == 0:
                for matrix in self._slabs(name):
                    yield matrix.permute([axis - 1 for axis in axes[1:]])
                return
        whole = self.whole(parameter)
        yield from whole if ndim == 3 else (whole,)

    def _slabs(self, name: str) -> Iterator[Tensor]:
        """The matrices of a stack that is one tensor, each read when it is asked for."""
        if not self._plain(name):
            yield from map(torch.from_numpy, slabs_of(self.checkpoint, name))
            return
        info = self.checkpoint.info(name)
        one = replace(info, shape=info.shape[1:], end=info.begin + info.size // max(1, info.shape[0]))
        with Files(self.checkpoint) as files:
            for slab in range(info.shape[0]):
                raw = bytearray(one.size)
                files.tensor(name, slab * one.size, np.frombuffer(raw, np.uint8))
                yield to_tensor(raw, one)

    def _plain(self, name: str) -> bool:
        """Whether a tensor's numbers lie there as they are: codes without their scales are other numbers."""
        return name in self.checkpoint.tensors and self.checkpoint.info(name).dtype in STORED

    def _tensor(self, name: str) -> Tensor:
        if self._plain(name):
            return self.checkpoint.read(name)
        return torch.from_numpy(values_of(self.checkpoint, name))
