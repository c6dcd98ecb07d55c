"""What is said in a chat: turns, answers, and the events while one is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["end", "length", "stopped"]
"""Why an answer ended: by the model itself, at the limit of new tokens, or because somebody stopped it."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of an answer.

    Attributes:
        side: of the session's sides, which one says it.
        text: what it completes; empty while a character is not whole.
        token: its id; None for text that was held back and comes at the end.
        component: of the stream along the direction, at the position that the token was read off; None where none is
            measured.
        thought: whether it belongs to a thought before the answer.
    """

    side: int
    text: str
    token: int | None
    component: float | None
    thought: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A whole answer of one side.

    Attributes:
        text: without a thought, special tokens and marks.
        thought: what was thought before; None where nothing was.
        pieces: the texts of its tokens as they were shown.
        components: of the stream along the direction, one per token; empty where none is measured.
        reason: why it ended.
        edit: the edit under which it was given, in one line; None where there was none.
        seconds: that this side's passes took, that over the prompt among them.
    """

    text: str
    thought: str | None
    pieces: tuple[str, ...]
    components: tuple[float, ...]
    reason: Reason
    edit: str | None
    seconds: float

    @property
    def tokens(self) -> int:
        """The number of its tokens, the one that ends it not among them."""
        return len(self.pieces)

    @property
    def mean(self) -> float | None:
        """The mean component; None where none was measured."""
        return sum(self.components) / len(self.components) if self.components else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "text": self.text,
            "thought": self.thought,
            "reason": self.reason,
            "edit": self.edit,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "pieces": list(self.pieces),
            "components": [round(each, 6) for each in self.components],
        }


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of one side's answer."""

    side: int
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A prompt with the answer of each side."""

    prompt: str
    answers: tuple[Answer, ...]
    attempt: int = 0

    def messages(self, side: int) -> list[Mapping[str, str]]:
        """The turn as the side's own template takes it: answers go on without their thoughts."""
        return [
            {"role": "user", "content": self.prompt},
            {"role": "assistant", "content": self.answers[side].text},
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"prompt": self.prompt, "answers": [answer.to_dict() for answer in self.answers]}
