"""How the next token is taken: greedily, or drawn at a temperature."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.errors import UsageError
from weight_edit.utils.seeds import LARGEST_SEED


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are taken from a model's probabilities.

    Attributes:
        temperature: 0 takes the likeliest token each time; 1 draws from the model's own probabilities.
        seed: of the draws. Both sides of a chat draw with the same numbers.
        max_new_tokens: of an answer, at most.

    Raises:
        UsageError: a value that makes no sense.
    """

    temperature: float = 0.0
    seed: int = 0
    max_new_tokens: int = 512

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0 <= self.temperature <= 100):
            raise UsageError(
                f"temperature {self.temperature} is not a number from 0 to 100; 0 takes the likeliest token",
                option="temperature",
            )
        if not 0 <= self.seed <= LARGEST_SEED:
            raise UsageError(f"seed {self.seed} is not a number from 0 to {LARGEST_SEED}", option="seed")
        if self.max_new_tokens < 1:
            raise UsageError(
                f"an answer cannot be cut to {self.max_new_tokens} tokens; it must be at least 1",
                option="max_new_tokens",
            )


class Chooser:
    """Takes tokens for one answer.

    Args:
        sampling: how.
        draw: which draw of the seed's it is: the number of the turn and of the attempt at it.
    """

    def __init__(self, sampling: Sampling, draw: tuple[int, int]) -> None:
        self._temperature = sampling.temperature
        # On the CPU, so that a seed draws the same numbers everywhere.
        self._generator = torch.Generator().manual_seed(hash((sampling.seed, *draw)) & LARGEST_SEED)

    def choose(self, logits: Tensor) -> int:
        """The next token's id.

        Args:
            logits: (vocabulary,) float32.
        """
        if self._temperature == 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits.cpu().double() / self._temperature, dim=0)
        return int(torch.multinomial(probabilities, 1, generator=self._generator))
