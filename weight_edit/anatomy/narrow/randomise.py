"""Random parameters for a narrow copy, including norm gains, biases and stored scales."""

import torch
from torch import nn

SPREAD = 0.3
CHOICE = 0.03
CHOOSERS = ("correction_bias", "expert_bias", "balancing_biases", "router.bias")
"""Biases that route to experts; larger random values would leave some expert unused."""


def randomise(model: nn.Module, seed: int) -> None:
    """Set every parameter at random, and every floating-point buffer near its own value.

    Default initialisation sets gains to 1, biases and gates to 0 and layer scales to 1, which hides mistakes.
    Parameters of one dimension (gains, biases, decay rates, time steps, temperatures) are perturbed, so that they stay
    in the range in which their family keeps them; others are drawn anew, with a spread that keeps activations in size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim <= 1:
                parameter.add_(_spread(name) * noise)
            elif name.endswith(CHOOSERS):
                parameter.copy_(CHOICE * noise)
            else:
                # A convolution over images (out, in, height, width) sums over all but its outputs.
                summed = parameter.shape[1:].numel() if parameter.ndim == 4 else parameter.shape[-1]
                parameter.copy_(noise * summed**-0.5)
        kept = model.state_dict(keep_vars=True)
        for name, buffer in model.named_buffers():
            # Tables (MiniMax's decay masks) follow from the config; scales and biases are what training finds.
            if name in kept and buffer.is_floating_point() and buffer.squeeze().ndim <= 1:
                noise = torch.randn(buffer.shape, generator=generator).clamp(-2, 2)
                buffer.copy_(torch.where(buffer == 0, _spread(name) * noise, buffer * (1 + SPREAD * noise)))
        for module in model.modules():
            _draw_experts(module, generator)


def _draw_experts(module: nn.Module, generator: torch.Generator) -> None:
    """Fill a router's table of each token's experts at random (DeepSeek V4)."""
    weight = getattr(module, "weight", None)
    for table in module.buffers(recurse=False):
        if table.dtype == torch.long and table.ndim == 2 and isinstance(weight, nn.Parameter) and not table.any():
            order = torch.rand(table.shape[0], weight.shape[0], generator=generator).argsort(dim=-1)
            table.copy_(order[:, : table.shape[1]])


def _spread(name: str) -> float:
    return CHOICE if name.endswith(CHOOSERS) else SPREAD
