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
    p, q = base.double().log_softmax(dim=-1), other.double().log_softmax(dim=-1)
    # xlogy's convention: where the base gives probability 0 the term is 0, whatever the other gives.
    terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))
    # Rounding can leave -1e-17; the divergence itself is never negative.
    return terms.sum(dim=-1).clamp(min=0.0)
