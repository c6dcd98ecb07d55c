"""What rounding to a storage dtype does to weights, at random: other roundings than the one that was stored."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from weight_edit.edits import TensorEdit

_UNITS = {"bfloat16": (7, -133), "float16": (10, -24)}
"""Bits after a number's first one, and the exponent of the smallest number above zero."""


@dataclass(frozen=True)
class RandomRounding:
    """Moves numbers at random by as much as rounding moves those of the edited tensor.

    Attributes:
        dtype: "bfloat16" or "float16": by up to half a unit in the last place to either side.
        relative: of a quantised format: |stored - exact| / |exact|, by which a tensor is moved instead.
    """

    dtype: str
    relative: float | None = None
    _generators: dict[torch.device, torch.Generator] = field(default_factory=dict, init=False, repr=False)

    def move(self, edit: TensorEdit, tensor: Tensor) -> Tensor:
        """A tensor of the base, float32, moved as rounding moves the edited one; the next call does otherwise."""
        if tensor.device not in self._generators:
            self._generators[tensor.device] = torch.Generator(tensor.device).manual_seed(0)
        generator = self._generators[tensor.device]
        edited = _about(edit, tensor)
        if self.relative is not None:
            size = self.relative * edited.square().mean().sqrt()
            return tensor + size * torch.randn(tensor.shape, generator=generator, device=tensor.device)
        bits, smallest = _UNITS[self.dtype]
        units = torch.exp2((torch.frexp(edited).exponent - 1 - bits).clamp(min=smallest).float())
        return torch.rand(tensor.shape, generator=generator, device=tensor.device).sub_(0.5).mul_(units).add_(tensor)


def _about(edit: TensorEdit, tensor: Tensor) -> Tensor:
    """The edited tensor, as nearly as float32 has it: good enough for the size of its numbers."""
    rows = tensor.movedim(edit.axis, -1)
    left, right, constant = edit.map.factors(tensor.device, tensor.dtype)
    if edit.gains is not None:
        rows = rows * torch.from_numpy(edit.gains).to(tensor)
    rows = rows - (rows @ right) @ left.T
    if constant is not None:
        rows = rows + constant
    return rows.movedim(-1, edit.axis)
