"""Cross-entropy of known texts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.comparisons import Comparison
from weight_edit.evaluation.means import FEWEST, ratio_comparison


class Nats(NamedTuple):
    """What a text costs a model: the sum of -log p over its tokens, and their number."""

    nats: float
    tokens: int


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy in nats per token of known answers, the end of the turn included, or of texts.

    Attributes:
        mean: over all tokens of all answers.
        tokens, answers: how many.
        standard_error: of the mean, from how answers differ; answers weigh by their tokens.
        parts: of each answer.
    """

    mean: float
    tokens: int
    answers: int
    standard_error: float = 0.0
    parts: tuple[Nats, ...] = field(default=(), repr=False, compare=False)

    @property
    def perplexity(self) -> float:
        """exp(mean)."""
        return math.exp(self.mean) if self.mean < 700 else math.inf  # where float64 ends

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the 95% interval by `ratio_comparison`; None of fewer than three answers."""
        if len(self.parts) < FEWEST:
            return None
        found = ratio_comparison([part.nats for part in self.parts], [part.tokens for part in self.parts])
        return max(0.0, found.low), found.high

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: mean, low, high, perplexity, tokens, answers, standard_error."""
        low, high = self.interval or (None, None)
        return {
            "mean": self.mean,
            "low": low,
            "high": high,
            "perplexity": self.perplexity if math.isfinite(self.perplexity) else None,
            "tokens": self.tokens,
            "answers": self.answers,
            "standard_error": self.standard_error,
        }


@dataclass(frozen=True, kw_only=True)
class LossBeside:
    """A loss beside the base's on the same texts.

    Attributes:
        loss: the model's.
        base: the base's; None without one.
    """

    loss: Loss
    base: Loss | None = None

    @property
    def difference(self) -> Comparison | None:
        """The model's loss minus the base's, see `loss_difference`."""
        return None if self.base is None else loss_difference(self.base.parts, self.loss.parts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the loss's figures, and with a base "base" and "difference"."""
        apart = self.difference
        beside = {} if self.base is None else {"base": self.base.to_dict(), "difference": apart and apart.to_dict()}
        return {**self.loss.to_dict(), **beside}


def cross_entropy(logprobs: Sequence[Tensor]) -> Loss:
    """The loss from each answer's token log-probabilities, summed in float64.

    Args:
        logprobs: one tensor (tokens,) per answer, as `runtime.answer_logprobs` gives them.

    Raises:
        UsageError: there is no token.
        VerificationError: a value is NaN or infinite; the message has the answer's number.
    """
    return loss_of(nats_of(logprobs))


def nats_of(logprobs: Sequence[Tensor]) -> list[Nats]:
    """What each answer costs, summed in float64.

    Raises:
        VerificationError: as `cross_entropy`.
    """
    parts = []
    for number, values in enumerate(logprobs, start=1):
        part = float(values.sum(dtype=torch.float64))
        if not math.isfinite(part):
            raise VerificationError(
                f"the loss of answer {number} is {-part}: the model's log-probabilities are not finite"
            )
        parts.append(Nats(-part, len(values)))
    return parts


def loss_of(parts: Sequence[Nats]) -> Loss:
    """The loss over answers of which each one's cost is known.

    Raises:
        UsageError: there is no token.
    """
    tokens = sum(part.tokens for part in parts)
    if tokens == 0:
        raise UsageError("a loss over zero answer tokens is unknown; give at least one answer")
    mean = sum(part.nats for part in parts) / tokens
    # The linearised error of a ratio of two sums.
    spread = sum((part.nats - mean * part.tokens) ** 2 for part in parts)
    error = math.sqrt(spread * len(parts) / max(1, len(parts) - 1)) / tokens
    return Loss(mean, tokens, len(parts), error, tuple(parts))


def loss_difference(base: Sequence[Nats], edited: Sequence[Nats]) -> Comparison | None:
    """The edited model's loss minus the base's over the same texts, by the paired bootstrap of `ratio_comparison`.

    None where the texts are fewer than three or not the same tokens to both.
    """
    if len(base) < FEWEST or [part.tokens for part in base] != [part.tokens for part in edited]:
        return None
    apart = [after.nats - before.nats for before, after in zip(base, edited, strict=True)]
    return ratio_comparison(apart, [part.tokens for part in base])
