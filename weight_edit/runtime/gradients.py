"""Gradients in what is added to a model, never in its weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from weight_edit.runtime.loading import Model


@contextmanager
def beside_weights(model: Model) -> Iterator[None]:
    """Within the context, weights require no gradients, but for the unembedding; their flags are restored after.

    Gradients are to be asked for by `slopes`, so that none are computed for that one either. It requires them since
    torch multiplies a slice of hidden states, the last ones of each row, at once by a matrix that does, and row by row
    by one that does not, which takes fifty times as long where the matrix is large.
    """
    kept = [(parameter, parameter.requires_grad) for parameter in model.model.parameters()]
    head = model.model.get_parameter(model.anatomy.unembedding_weight)
    for parameter, _ in kept:
        parameter.requires_grad_(parameter is head and parameter.is_floating_point())
    try:
        yield
    finally:
        for parameter, flag in kept:
            parameter.requires_grad_(flag)


def slopes(loss: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...] | None:
    """The gradients of a loss, None for an input that it does not depend on; None where it depends on none.

    So it is with a model whose own code lets no gradients through.
    """
    if not loss.requires_grad:
        return None
    found = torch.autograd.grad(loss, list(inputs), allow_unused=True)
    return None if all(each is None for each in found) else found
