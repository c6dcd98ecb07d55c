"""The three losses of refusal direction optimisation (arXiv 2502.17420), differentiable in the directions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from weight_edit.activations import Point, all_points
from weight_edit.directions.texts import Said, padded, predictions
from weight_edit.points import hook_at
from weight_edit.runtime import Hook, Model, hooked
from weight_edit.threads import one_thread

PARTS = ("answer", "refuse", "retain")
"""The losses: the answer to target prompts under ablation, the refusal of baseline prompts under addition, and how far
ablation moves what is said to baseline prompts."""


@dataclass(frozen=True, eq=False)
class Losses:
    """What directions are judged by.

    Attributes:
        model: the model.
        layer: at whose input a direction is added.
        length: of what is added.
        texts: for each of `PARTS`, prompts and what should be said to them.
    """

    model: Model
    layer: int
    length: float
    texts: dict[str, list[Said]]

    def of(self, part: str, rows: Sequence[int], directions: Tensor) -> Tensor:
        """One loss on some texts, the mean over their tokens, a scalar on the CPU.

        Args:
            part: one of `PARTS`.
            rows: which of the part's texts.
            directions: the unit direction that is used for each of them, (rows, d_model) float32.
        """
        texts = [self.texts[part][row] for row in rows]
        total = torch.zeros(())
        with one_thread() if self.model.small else nullcontext():
            for batch in padded(self.model, texts):
                used = directions[list(batch.rows)]
                hooks = self._addition(used) if part == "refuse" else ablating(self.model, used)
                base = None
                if part == "retain":
                    with torch.no_grad():
                        base = predictions(self.model, batch, texts).logits.log_softmax(dim=-1)
                with hooked(self.model.model, hooks):
                    found = predictions(self.model, batch, texts)
                if base is None:
                    loss = cross_entropy(found.logits, found.wanted, reduction="sum")
                else:
                    loss = (base.exp() * (base - found.logits.log_softmax(dim=-1))).sum()
                total = total + loss.cpu()
        return total / sum(len(text.text) for text in texts)

    def _addition(self, directions: Tensor) -> list[Hook]:
        def add(x: Tensor) -> Tensor:
            return x + (self.length * spread(directions, x)).to(x.dtype)

        return [hook_at(self.model, Point("resid_pre", self.layer), add)]


def ablating(model: Model, directions: Tensor) -> list[Hook]:
    """Hooks that remove from each prompt's stream its own unit direction (prompts, d_model), wherever it is read.

    They are at points of the stream, which every family has, so that they are differentiable in the directions whatever
    norms lie between a writer and the stream; readers see what they would see if all that is written lacked them.
    """

    def remove(x: Tensor) -> Tensor:
        u = spread(directions, x)
        exact = x.float()
        return (exact - (exact * u).sum(dim=-1, keepdim=True) * u).to(x.dtype)

    last = model.anatomy.n_layers - 1
    # A block's output is the next one's input.
    points = [point for point in all_points(model) if point.kind != "resid_post" or point.layer == last]
    return [hook_at(model, point, remove) for point in points]


def spread(directions: Tensor, x: Tensor) -> Tensor:
    """One direction for each prompt of x (prompts, ..., d_model), in a shape that is added to it, on its device."""
    return directions.to(x.device).view(len(x), *[1] * (x.ndim - 2), x.shape[-1])


@contextmanager
def fixed(model: Model) -> Iterator[None]:
    """The weights take no gradients for the length of the block, and others' settings come back."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
