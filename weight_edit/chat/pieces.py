"""The text of an answer token by token, whole characters only."""

from collections.abc import Sequence
from typing import Any

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class TextPieces:
    """Turns tokens into pieces of text that can be shown as they come.

    A character whose bytes are spread over several tokens comes with the last of them, so that no part of one is ever
    shown. The pieces together are the text that the tokens decode to, special tokens spelled out.

    Args:
        tokenizer: a transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        # Tokens before `_shown` have been given; those from `_begin` on are decoded with the new ones, because what a
        # token is as text depends on whether it comes first.
        self._begin = self._shown = 0

    def push(self, token: int) -> str:
        """The text that a further token completes; empty while a character is not whole."""
        self._tokens.append(token)
        before, now = self._decoded(self._tokens[self._begin : self._shown]), self._decoded(self._tokens[self._begin :])
        if now.endswith(_BROKEN) or len(now) <= len(before):
            return ""
        self._begin, self._shown = self._shown, len(self._tokens)
        return now[len(before) :]

    def rest(self) -> str:
        """The text of what was held back when no further token comes: a broken character, mostly."""
        before, now = self._decoded(self._tokens[self._begin : self._shown]), self._decoded(self._tokens[self._begin :])
        self._begin = self._shown = len(self._tokens)
        return now[len(before) :]

    def _decoded(self, tokens: Sequence[int]) -> str:
        if not tokens:
            return ""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))
