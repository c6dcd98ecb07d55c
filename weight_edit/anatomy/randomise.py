"""Random parameters for a narrow copy: norm gains, biases and stored scales included, and sane where they must be."""

import torch
from torch import nn

SPREAD = 0.3


def randomise(model: nn.Module, seed: int) -> None:
    """Give every parameter random values, and every stored floating-point buffer values near its own.

    Default initialisation sets gains to 1, biases and gates to 0 and layer scales to 1, which hides mistakes.
    Parameters of one dimension (gains, biases, decay rates, time steps, temperatures) are perturbed, so that they stay
    in the range in which their family keeps them; others are drawn anew, with a spread that keeps activations in size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim <= 1:
                parameter.add_(SPREAD * noise)
            else:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
        kept = model.state_dict(keep_vars=True)
        for name, buffer in model.named_buffers():
            if name in kept and buffer.is_floating_point():
                noise = torch.randn(buffer.shape, generator=generator).clamp(-2, 2)
                buffer.copy_(torch.where(buffer == 0, SPREAD * noise, buffer * (1 + SPREAD * noise)))
