"""Random roundings of weights to a storage dtype, to compare with the stored rounding."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from weight_edit.edits.on_tensor import TensorEdit

_UNITS = {"bfloat16": (7, -133), "float16": (10, -24)}
"""Mantissa bits, and the exponent of the smallest positive number."""


@dataclass(frozen=True)
class RandomRounding:
    """Random perturbations of weights, as large as the rounding of the edited tensor.

    Attributes:
        dtype: "bfloat16" or "float16": by up to half a unit in the last place to either side.
        relative: of a quantised format: |stored - exact| / |exact|, by which a tensor is moved instead.
    """

    dtype: str
    relative: float | None = None
    _generators: dict[torch.device, torch.Generator] = field(default_factory=dict, init=False, repr=False)

    def move(self, edit: TensorEdit, tensor: Tensor) -> Tensor:
        """A base tensor, float32, plus a random error as large as the edited tensor's rounding.

        Each call draws another error.
        """
        edited = _about(edit, tensor)
        if self.relative is not None:
            size = self.relative * edited.square().mean().sqrt()
            generator = self._generator(tensor.device)
            return tensor + size * torch.randn(tensor.shape, generator=generator, device=tensor.device)
        return self.of(edited).add_(tensor)

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
            self._generators[device] = torch.Generator(device).manual_seed(0)
        return self._generators[device]


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
