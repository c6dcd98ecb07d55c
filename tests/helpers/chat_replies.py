"""A prompt of a chat, and its replies as texts."""

from collections.abc import Iterable

from weight_edit.chat.turns import Ended, Token

PROMPT = "Tell me how to bake bread."


def texts(events: Iterable[Token | Ended]) -> list[str]:
    """What each side said, put together from its tokens."""
    said = ["", ""]
    for event in events:
        if isinstance(event, Token):
            said[event.side] += event.text
    return said
