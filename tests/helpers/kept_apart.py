"""Formulas that the verdict's thresholds were fixed without: of edits, and of changes that are none."""

import math

import torch
from torch import Tensor

from tests.helpers.other_tools import Tensors, on_writers


def rotated(tensors: Tensors, v: Tensor, u: Tensor, angle: float = 60.0) -> Tensors:
    """The stream turned by an angle (degrees) in the plane of two directions (as in arXiv 2510.26243), on writers."""
    w = u - v * (v @ u)
    w = w / w.norm()
    plane = torch.stack([v, w])
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    turn = torch.tensor([[c - 1, -s], [s, c - 1]], dtype=torch.float64)
    return on_writers(tensors, lambda m, layer, name: m + plane.T @ turn @ (plane @ m))


def heads_ablated(tensors: Tensors, v: Tensor, head: int, share: float = 0.5) -> Tensors:
    """Ablation of the outputs of some heads of attention only, and of all MLPs."""
    generator = torch.Generator().manual_seed(8)

    def edit(w: Tensor, layer: int, name: str) -> Tensor:
        change = torch.outer(v, v @ w)
        if "self_attn" in name:
            change = change * (torch.rand(w.shape[1] // head, generator=generator) < share).repeat_interleave(head)
        return w - change

    return on_writers(tensors, edit)


def conditioned(tensors: Tensors, v: Tensor, ranks: int = 16) -> Tensors:
    """Ablation for inputs of one kind alone: `W - v v^T W C`, C a projection on a few directions of the input."""

    def edit(w: Tensor, layer: int, name: str) -> Tensor:
        generator = torch.Generator().manual_seed(layer)
        c = torch.linalg.qr(torch.randn(w.shape[1], ranks, generator=generator, dtype=torch.float64))[0]
        return w - torch.outer(v, (v @ w) @ c @ c.T)

    return on_writers(tensors, edit)


def dare(base: Tensors, tuned: Tensors, dropped: float = 0.9) -> Tensors:
    """Most of a fine-tune's differences dropped at random and the others enlarged (arXiv 2311.03099)."""
    generator = torch.Generator().manual_seed(9)
    made = dict(base)
    for name, t in base.items():
        if t.ndim == 2:
            kept = torch.rand(t.shape, generator=generator) >= dropped
            made[name] = (t.float() + (tuned[name].float() - t.float()) * kept / (1 - dropped)).to(t.dtype)
    return made


def inputs_scaled(tensors: Tensors, strength: float = 0.5, offset: float = 0.0) -> Tensors:
    """Scales moved from the norms in front of attention into what reads (arXiv 2306.00978): the same function."""
    made = dict(tensors)
    for name, gains in tensors.items():
        if name.endswith("input_layernorm.weight"):
            block = name[: name.index("input_layernorm")]
            readers = [f"{block}self_attn.{part}_proj.weight" for part in "qkv"]
            size = torch.cat([tensors[reader].float() for reader in readers]).abs().amax(0) ** strength
            size = size / size.mean()
            made[name] = ((gains.float() + offset) / size - offset).to(gains.dtype)
            for reader in readers:
                made[reader] = (tensors[reader].float() * size).to(tensors[reader].dtype)
    return made
