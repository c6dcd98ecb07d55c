"""Random roundings of weights to a storage dtype, to compare with the stored rounding."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weight_edit.edits.on_tensor import TensorEdit

_UNITS = {"bfloat16": (7, -133), "float16": (10, -24)}
"""Mantissa bits, and the exponent of the smallest positive number."""

_PIECE = 1 << 20
"""Numbers of a tensor that are moved at a time."""


@dataclass(frozen=True)
class RandomRounding:
    """Random perturbations of weights, as large as the rounding of the edited tensor.

    Attributes:
        dtype: "bfloat16" or "float16": by up to half a unit in the last place to either side.
        relative: of a quantised format: |stored - exact| / |exact|, by which a tensor is moved instead.
        seed: of the random numbers.
    """

    dtype: str
    relative: float | None = None
    seed: int = 0
    _generators: dict[torch.device, torch.Generator] = field(default_factory=dict, init=False, repr=False)

    def move(self, edit: TensorEdit, tensor: Tensor) -> Tensor:
        """A base tensor, float32, plus a random error as large as the edited tensor's rounding.

        Each call draws another error.
        """
        size = None
        if self.relative is not None:
            squares = sum(float(_about(edit, some).square().sum()) for some in _pieces(edit, tensor))
            size = self.relative * math.sqrt(squares / tensor.numel())
        moved = tensor.clone()
        for some in _pieces(edit, moved):
            edited = _about(edit, some)
            if size is None:
                some += self.of(edited)
            else:
                some += size * torch.randn(some.shape, generator=self._generator(some.device), device=some.device)
        return moved

    def of(self, numbers: Tensor) -> Tensor:
        """Random rounding errors of `numbers` in `dtype`, float32; each call draws others."""
        bits, smallest = _UNITS[self.dtype]
        units = torch.exp2((torch.frexp(numbers).exponent - 1 - bits).clamp(min=smallest).float())
        # A zero is stored as it is, and has no exponent.
        units.mul_(numbers != 0)
        generator = self._generator(numbers.device)
        return torch.rand(numbers.shape, generator=generator, device=numbers.device).sub_(0.5).mul_(units)

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self.seed)
        return self._generators[device]


def _pieces(edit: TensorEdit, tensor: Tensor) -> Sequence[Tensor]:
    """Views of a tensor that an edit changes each by itself: there are some six copies of what is moved."""
    axes = [axis for axis in range(tensor.ndim) if axis != edit.axis % tensor.ndim]
    if not axes:
        return [tensor]
    count = max(1, _PIECE * tensor.shape[axes[0]] // max(1, tensor.numel()))
    return tensor.split(count, axes[0])


def _about(edit: TensorEdit, tensor: Tensor) -> Tensor:
    """The edited tensor computed in float32: accurate enough for the size of its numbers."""
    rows = tensor.movedim(edit.axis, -1)
    left, right, constant = edit.map.factors(tensor.device, tensor.dtype)
    if edit.gains is not None:
        rows = rows * torch.from_numpy(edit.gains).to(tensor)
    rows = rows - (rows @ right) @ left.T
    if constant is not None:
        rows = rows + constant
    return rows.movedim(-1, edit.axis)
