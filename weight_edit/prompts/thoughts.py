"""Thoughts between `<think>` and `</think>`, split from the answers after them."""

from dataclasses import dataclass

OPEN, CLOSE = "<think>", "</think>"
GAP = "\n\n"
"""The text between a thought and the answer, as thinking models write it."""


@dataclass(frozen=True)
class Thinking:
    """An answer that began with a thought.

    Attributes:
        thought: what stands before `</think>`, without the `<think>` before it, white space as it is.
        answer: what follows `</think>`; None where the thought was not finished.
    """

    thought: str
    answer: str | None


def split_thought(text: str, *, opened: bool = False) -> Thinking | None:
    """The thought and the text after it; None for a text without a thought.

    A text with `</think>` alone has one, too: many chat templates put `<think>` at the end of the prompt.

    Args:
        opened: the prompt ended within a thought, so a text without `</think>` is an unfinished one.
    """
    before, closing, after = text.partition(CLOSE)
    begins = before.lstrip().startswith(OPEN)
    if not (begins or closing or opened):
        return None
    thought = before.lstrip().removeprefix(OPEN) if begins else before
    if not closing:
        return Thinking(thought, None)
    again = split_thought(after) if after.lstrip().startswith(OPEN) else None
    return Thinking(thought, after) if again is None else Thinking(f"{thought}{again.thought}", again.answer)
