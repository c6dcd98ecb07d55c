"""Cross-entropy of known answers."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from weight_edit.errors import UsageError, VerificationError


@dataclass(frozen=True)
class Loss:
    """Mean cross-entropy in nats per answer token, the end of the turn included.

    Attributes:
        mean: over all tokens of all answers.
        tokens, answers: how many.
        standard_error: of the mean, from how answers differ; answers weigh by their tokens.
    """

    mean: float
    tokens: int
    answers: int
    standard_error: float = 0.0

    @property
    def perplexity(self) -> float:
        """exp(mean)."""
        return math.exp(self.mean) if self.mean < 700 else math.inf  # where float64 ends

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: mean, tokens, answers, standard_error."""
        return asdict(self)


def cross_entropy(logprobs: Sequence[Tensor]) -> Loss:
    """The loss from each answer's token log-probabilities, summed in float64.

    Args:
        logprobs: one tensor (tokens,) per answer, as `runtime.answer_logprobs` gives them.

    Raises:
        UsageError: there is no token.
        VerificationError: a value is NaN or infinite; the message has the answer's number.
    """
    tokens = sum(len(values) for values in logprobs)
    if tokens == 0:
        raise UsageError("a loss over zero answer tokens is unknown; give at least one answer")
    parts = []
    for number, values in enumerate(logprobs, start=1):
        part = float(values.sum(dtype=torch.float64))
        if not math.isfinite(part):
            raise VerificationError(
                f"the loss of answer {number} is {-part}: the model's log-probabilities are not finite"
            )
        parts.append((-part, len(values)))
    mean = sum(part for part, _ in parts) / tokens
    # The linearised error of a ratio of two sums.
    spread = sum((part - mean * count) ** 2 for part, count in parts)
    return Loss(mean, tokens, len(parts), math.sqrt(spread * len(parts) / max(1, len(parts) - 1)) / tokens)
