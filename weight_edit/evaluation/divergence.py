"""The divergence of the edited model's first answer token from the base's."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.kl import kl_divergence
from weight_edit.evaluation.means import FEWEST, mean_comparison

_ROWS = 16  # rows held in float64 at a time: 16 of a vocabulary of 256k are 33 MB


@dataclass(frozen=True)
class Divergence:
    """KL(base || edited) in nats over prompts, and the share with the same most probable token.

    Attributes:
        mean, max: over prompts.
        agreement: prompts on which both have the same most probable token.
        per_prompt: (n,) float64.
        lower_bound: the divergence is at least that, see `least_divergence`.
    """

    mean: float
    max: float
    agreement: Rate
    per_prompt: Tensor = field(repr=False, compare=False)
    lower_bound: bool = False

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the mean's 95% interval over prompts, see `mean_interval`."""
        return mean_interval(self.per_prompt)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: mean, low, high, max, agreement; lower_bound where it is one."""
        bound = {"lower_bound": True} if self.lower_bound else {}
        low, high = self.interval or (None, None)
        return {
            "mean": self.mean,
            "low": low,
            "high": high,
            "max": self.max,
            "agreement": self.agreement.to_dict(),
            **bound,
        }


def mean_interval(per_prompt: Tensor) -> tuple[float, float] | None:
    """The 95% interval of a mean divergence over prompts by `mean_comparison`; None of fewer than three prompts.

    A divergence is never negative, nor are the interval's ends.
    """
    if len(per_prompt) < FEWEST:
        return None
    found = mean_comparison(per_prompt.tolist())
    return max(0.0, found.low), found.high


def divergence(base: Tensor, edited: Tensor) -> Divergence:
    """Compare two sets of log-probabilities, row by row, in float64.

    Args:
        base, edited: (n, vocabulary) log-probabilities, any float dtype. They are renormalised, which removes
            the rounding of float32; -inf stands for a probability of 0.

    Raises:
        UsageError: no rows, or the shapes differ (other prompts, or another vocabulary).
        VerificationError: a value is NaN or +inf, or a token that the base may say has probability 0 after
            the edit.
    """
    check_same_shape(base, edited)
    if len(base) == 0:
        raise UsageError("a divergence over zero prompts is unknown; give at least one prompt")
    pairs = zip(base.split(_ROWS), edited.split(_ROWS), strict=True)
    per_prompt = torch.cat([kl_divergence(first, second) for first, second in pairs])
    return divergence_over(per_prompt, (base.argmax(dim=-1) == edited.argmax(dim=-1)).tolist())


def divergence_over(per_prompt: Tensor, same: Sequence[bool]) -> Divergence:
    """The first token's divergence from that on each prompt.

    Args:
        per_prompt: (n,) float64.
        same: whether both models have the same most probable token, prompt by prompt.

    Raises:
        VerificationError: as `divergence`.
    """
    check_finite(per_prompt, "first-token divergence")
    return Divergence(float(per_prompt.mean()), float(per_prompt.max()), Rate(sum(same), len(same)), per_prompt)


def check_same_shape(base: Tensor, edited: Tensor) -> None:
    """Refuse values of two models that are not (n, vocabulary) of the same prompts and vocabulary.

    Raises:
        UsageError: naming both shapes.
    """
    if base.ndim != 2 or base.shape != edited.shape:
        raise UsageError(
            f"the divergence needs log-probabilities for the same prompts and vocabulary, not "
            f"{tuple(base.shape)} of the base and {tuple(edited.shape)} of the edited model"
        )


def check_finite(per_prompt: Tensor, what: str) -> None:
    """Refuse divergences that are not finite.

    Raises:
        VerificationError: with the number of the first such prompt.
    """
    if not per_prompt.isfinite().all():
        row = int((~per_prompt.isfinite()).nonzero()[0])
        raise VerificationError(
            f"the {what} on prompt {row + 1} is {float(per_prompt[row])}: "
            "log-probabilities of the base or edited model are not finite"
        )
