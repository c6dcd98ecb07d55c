"""Gradients in what is added to a model, never in its weights."""

from collections.abc import Iterator
from contextlib import contextmanager

from weight_edit.runtime.loading import Model


@contextmanager
def fixed(model: Model) -> Iterator[None]:
    """Within the context, the weights require no gradients; their flags are restored after."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
