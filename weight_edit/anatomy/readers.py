"""Readers of the residual stream: their weights, axes and norms."""

from dataclasses import dataclass

import torch
from torch import nn

from weight_edit.anatomy.parts import Anatomy, Norm, Reader
from weight_edit.errors import UnsupportedError


@dataclass(frozen=True)
class ReadingWeight:
    """A weight whose vectors along one axis are multiplied with the stream.

    Attributes:
        weight: name of the parameter.
        axis: along which those vectors lie: 1 in `nn.Linear`, 0 in `Conv1D`.
        layer: the block's number; None for the unembedding.
        norm: through which it reads; None where it reads the stream as it is.
    """

    weight: str
    axis: int
    layer: int | None
    norm: Norm | None


@dataclass(frozen=True)
class Reading:
    """The reading weights of a model.

    Attributes:
        weights: of the readers, in order.
    """

    weights: tuple[ReadingWeight, ...]

    @property
    def centred(self) -> bool:
        """Whether any norm before a reader subtracts the mean."""
        return any(each.norm is not None and each.norm.kind == "layer" for each in self.weights)


def reading_of(model: nn.Module, anatomy: Anatomy) -> Reading:
    """The reading weights and their norms, found on a narrow copy with random parameters.

    What a norm is, is told by what it computes. Axes follow from the modules' kinds; whether all that reads was found
    is for a proof to decide.

    Raises:
        UnsupportedError: a norm in front of a reader that is neither an RMSNorm nor a LayerNorm.
    """
    writing = {writer.weight: writer.axis for writer in anatomy.writers}
    found = []
    for reader in anatomy.readers:
        norm = None if reader.norm is None else _norm(model, reader.norm)
        found += [ReadingWeight(name, axis, reader.layer, norm) for name, axis in _weights(model, reader, writing)]
    return Reading(tuple(found))


def _weights(model: nn.Module, reader: Reader, writing: dict[str, int]) -> list[tuple[str, int]]:
    found = []
    for name in reader.modules:
        module = model.get_submodule(name)
        held = dict(module.named_parameters(recurse=False))
        for key, parameter in held.items():
            full = f"{name}.{key}"
            if parameter.ndim < 2 or full in writing or (parameter.ndim == 2 and "bias" in key):
                continue
            axis = parameter.ndim - 1
            if parameter.ndim == 2 and type(module).__name__ == "Conv1D":
                axis = 0
            # Experts of one module are multiplied on one side: what their outputs lie along, their inputs do not.
            beside = [writing[f"{name}.{other}"] for other in held if f"{name}.{other}" in writing]
            if parameter.ndim == 3 and beside:
                axis = 3 - beside[0]
            found.append((full, axis))
    return found


def _norm(model: nn.Module, name: str) -> Norm:
    """The kind of a norm module, by its outputs for random vectors."""
    module = model.get_submodule(name)
    held = dict(module.named_parameters())
    weights = [key for key in held if key.rpartition(".")[2] == "weight"]
    biases = [key for key in held if key.rpartition(".")[2] == "bias"]
    width = next(iter(held.values())).shape[0] if held else None
    if len(weights) > 1 or len(biases) > 1 or len(held) != len(weights) + len(biases):
        raise _unknown(name)
    if width is None:
        return (
            Norm(module=name, kind="rms", gain_offset=0.0, weight=None, bias=None)
            if _rms_without_gain(module)
            else _refuse(name)
        )
    # Large, so that what keeps a norm from dividing by zero does not show.
    x = 100 * torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y = module(x)
    zero = torch.zeros(width)
    bias = held[biases[0]].detach() if biases else zero
    for kind, plain in (("rms", x), ("layer", x - x.mean(dim=-1, keepdim=True))):
        unit = plain / plain.square().mean(dim=-1, keepdim=True).sqrt()
        for offset in (0.0, 1.0):
            gain = offset + held[weights[0]].detach() if weights else torch.ones(width)
            if torch.allclose(y, unit * gain + bias, rtol=1e-3, atol=1e-3):
                first = f"{name}.{weights[0]}" if weights else None
                return Norm(
                    module=name,
                    kind=kind,
                    gain_offset=offset if weights else 0.0,
                    weight=first,
                    bias=f"{name}.{biases[0]}" if biases else None,
                )
    raise _unknown(name)


def _rms_without_gain(module: nn.Module) -> bool:
    x = 100 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        y = module(x)
    return torch.allclose(y, x / x.square().mean(dim=-1, keepdim=True).sqrt(), rtol=1e-3, atol=1e-3)


def _refuse(name: str) -> Norm:
    raise _unknown(name)


def _unknown(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"'{name}', through which the residual stream is read, is neither an RMSNorm nor a LayerNorm, so that a "
        "reflection at one layer cannot be baked; reflect all writers instead (leave `at` out)",
        option="at",
    )
