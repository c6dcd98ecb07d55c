"""What asking a server took: requests, tokens and, where prices are given, money."""

from dataclasses import dataclass
from typing import Any

from weight_edit.evaluation.endpoint.answer import ChatAnswer


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices of tokens, each for a million of them, in any currency.

    Attributes:
        prompt: of the tokens of requests.
        answer: of the tokens of answers, thoughts included.
    """

    prompt: float
    answer: float


@dataclass(kw_only=True)
class Usage:
    """A count of what was asked of a server.

    Attributes:
        asked: answers that the server gave.
        cached: answers that came from the cache.
        oldest: when the oldest of those was asked, as ISO 8601 in UTC.
        prompt_tokens, answer_tokens: of what was asked now.
        uncounted: answers of which the server did not say the tokens.
    """

    asked: int = 0
    cached: int = 0
    oldest: str | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    uncounted: int = 0

    def add(self, answer: ChatAnswer) -> None:
        """Count an answer."""
        if answer.cached is not None:
            self.cached += 1
            self.oldest = min(answer.cached, self.oldest or answer.cached)
            return
        self.asked += 1
        if answer.prompt_tokens is None or answer.answer_tokens is None:
            self.uncounted += 1
        self.prompt_tokens += answer.prompt_tokens or 0
        self.answer_tokens += answer.answer_tokens or 0

    def cost(self, prices: Prices) -> float:
        """What was asked now costs so much, as far as the server counts tokens."""
        return (self.prompt_tokens * prices.prompt + self.answer_tokens * prices.answer) / 1e6

    def to_dict(self, prices: Prices | None = None) -> dict[str, Any]:
        """JSON-ready: the counts, and with prices the cost."""
        counts = {
            "answers": self.asked + self.cached,
            "cached": self.cached,
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "uncounted": self.uncounted,
        }
        return {**counts, **({} if prices is None else {"cost": self.cost(prices)})}

    def line(self, prices: Prices | None = None) -> str:
        """The count in words: "12 answers, 3 of them from the cache; 1,200 and 90 tokens; cost 0.0042"."""
        total = self.asked + self.cached
        said = f"{total:,} answer{'' if total == 1 else 's'}"
        if self.cached:
            share = "all" if not self.asked else f"{self.cached:,} of them"
            said += f", {share} from the cache (the oldest of {(self.oldest or '')[:10]})"
        if self.asked:
            said += f"; {self.prompt_tokens:,} tokens of requests and {self.answer_tokens:,} of answers"
        if self.uncounted:
            said += f" ({self.uncounted:,} not counted by the server)"
        if prices is not None and self.asked:
            said += f"; cost {self.cost(prices):.4f}"
        return said
