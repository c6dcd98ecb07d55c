"""One side's answer as rows of a column: its text wrapped, or one token a row."""

from bisect import bisect_left
from dataclasses import dataclass

from weight_edit.chat.terminal.safe_text import safe_text
from weight_edit.chat.terminal.wrapping import clusters, wrapped
from weight_edit.chat.turns import Token

SHOWN = ("lines", "tokens", "text")
"""What stands in a row: a line of the answer with a bar, a token with a bar and its number, or a line without."""


@dataclass(frozen=True)
class FlowRow:
    """A row of a column.

    Attributes:
        text: no wider than was asked for.
        component: mean of its tokens'; None where none was measured.
        thought: whether it begins within a thought.
    """

    text: str
    component: float | None
    thought: bool = False


class Flow:
    """A side's answer as it comes, and how much of it has been drawn for good.

    Args:
        shown: one of `SHOWN`.
    """

    def __init__(self, shown: str) -> None:
        self._by_token = shown == "tokens"
        self._text = ""
        self._tokens: list[tuple[int, Token, str]] = []
        self._drawn = 0
        self._ends: list[int] = []
        self.ended = False

    def push(self, token: Token) -> None:
        """Add a token."""
        text = safe_text(token.text)
        self._tokens.append((len(self._text), token, text))
        self._text += text

    def rows(self, width: int) -> list[FlowRow]:
        """The rows that are not drawn for good; all but the last one stay as they are, whatever follows."""
        return self._token_rows(width) if self._by_token else self._line_rows(width)

    def commit(self, count: int) -> None:
        """Count the first rows that `rows` gave as drawn for good."""
        if count:
            self._drawn = self._ends[count - 1]

    def _line_rows(self, width: int) -> list[FlowRow]:
        rows = wrapped(self._text, width, self._drawn)
        # A row reaches up to the next one, white space at the break included.
        self._ends = [*(row.start for row in rows[1:]), len(self._text) + 1]
        starts = [start for start, _, _ in self._tokens]
        found = []
        for row, end in zip(rows, self._ends, strict=True):
            tokens = [each[1] for each in self._tokens[bisect_left(starts, row.start) : bisect_left(starts, end)]]
            components = [token.component for token in tokens if token.component is not None]
            mean = sum(components) / len(components) if components else None
            text = self._text[row.start : row.end].rstrip(" ")
            found.append(FlowRow(text, mean, bool(tokens) and tokens[0].thought))
        return [] if self._drawn > len(self._text) else found

    def _token_rows(self, width: int) -> list[FlowRow]:
        left = self._tokens[self._drawn :]
        self._ends = list(range(self._drawn + 1, len(self._tokens) + 1))
        return [FlowRow(_cut(_visible(text), width), token.component, token.thought) for _, token, text in left]


def _visible(text: str) -> str:
    """A token's text with its white space to be seen."""
    return text.replace(" ", "\N{MIDDLE DOT}").replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")


def _cut(text: str, width: int) -> str:
    """The text's beginning, no wider than `width` cells."""
    cells = 0
    for begin, _, size in clusters(text):
        if cells + size > width:
            return text[:begin]
        cells += size
    return text
