"""The Kullback-Leibler divergence of next-token distributions."""

import torch
from torch import Tensor


def kl_divergence(base: Tensor, other: Tensor) -> Tensor:
    """KL(base || other) of each row, in nats, (n,) float64.

    Args:
        base, other: logits or log-probabilities, (n, vocabulary), any float dtype. They are normalised, which removes
            the rounding of log-probabilities; -inf stands for a probability of 0.

    Returns:
        Never negative; infinite where `other` gives no probability to what `base` may say; NaN stays NaN.
    """
    return kl_from(exact(base).log_softmax(dim=-1), other)


def kl_from(base: Tensor, other: Tensor) -> Tensor:
    """`kl_divergence` from a base whose log-probabilities are normalised once, on its device and in its dtype.

    Args:
        base: what `log_softmax` made of `exact` logits, (n, vocabulary).
        other: logits, (n, vocabulary) on the same device, any float dtype.
    """
    q = other.to(base.dtype).log_softmax(dim=-1)
    # xlogy's convention: where the base gives probability 0 the term is 0, whatever the other gives.
    terms = torch.where(base == -torch.inf, 0.0, base.exp() * (base - q))
    # Rounding can leave -1e-17; the divergence itself is never negative.
    return terms.sum(dim=-1).clamp(min=0.0)


def exact(x: Tensor) -> Tensor:
    """The tensor in float64, or in float32 on a device that has no float64."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)
