"""A reply drawn as it comes: a column for each side, a bar beside each row."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style

from weight_edit.chat.session import ChatSession
from weight_edit.chat.terminal.bars import WIDTH, Bars
from weight_edit.chat.terminal.commands import figure
from weight_edit.chat.terminal.flow import Flow, FlowRow
from weight_edit.chat.terminal.region import Line, Region
from weight_edit.chat.terminal.safe_text import safe_text
from weight_edit.chat.terminal.wrapping import wrapped
from weight_edit.chat.turns import Answer, Ended, Token

_NARROWEST = 16
"""Cells of text below which two sides stand one below the other."""

_EVERY = 1 / 30
"""Seconds between two drawings, at least."""

_NUMBER = 8
_ALL = -1
_HEADING, _BAR, _QUIET = Style(bold=True), Style(color="#3d8fd1"), Style(dim=True)
_ENDINGS = {"end": "", "length": ", cut at the limit", "stopped": ", stopped"}


@dataclass(frozen=True)
class _Column:
    """Where a side's column begins, and the cells of its text and its bars."""

    at: int
    text: int
    bars: int


class ReplyDrawing:
    """The drawing of one reply; rows that no later token can change stay, the others are drawn again.

    Args:
        session: whose sides answer.
        console: of the terminal.
        bars: what a component looks like.
        shown: one of `flow.SHOWN`.
    """

    def __init__(self, session: ChatSession, console: Console, bars: Bars, shown: str) -> None:
        self._names = [safe_text(side.name) for side in session.sides]
        self._console, self._bars = console, bars
        self._measured = session.layer is not None and shown != "text"
        self._numbers = shown == "tokens"
        self._separator = "│" if (console.encoding or "").lower().startswith("utf") else "|"
        self._flows = [Flow(shown) for _ in self._names]
        self._answers: list[Answer | None] = [None] * len(self._names)
        # Whose heading was drawn last: a side's number, or `_ALL` for all beside one another.
        self._headed: int | None = None
        self._headed_at: Sequence[_Column] = ()
        self._region = Region(console.file)
        self._last = 0.0

    def show(self, event: Token | Ended) -> None:
        """Draw an event; tokens that come fast are drawn several at a time."""
        if isinstance(event, Ended):
            self._flows[event.side].ended = True
            self._answers[event.side] = event.answer
        else:
            self._flows[event.side].push(event)
            if event.component is not None:
                self._bars.note(event.component)
        if isinstance(event, Ended) or time.monotonic() - self._last >= _EVERY:
            self.draw()

    def draw(self) -> None:
        """Draw all that has come."""
        columns = self._columns()
        stays, live = self._beside(columns) if len(columns) > 1 else self._below(columns[0])
        self._region.draw(stays, live)
        self._last = time.monotonic()

    def finish(self) -> None:
        """Draw what is left, for good, and the figures of each answer below it."""
        for flow in self._flows:
            flow.ended = True
        self.draw()
        columns = self._columns()
        if len(columns) > 1:
            texts = [self._facts(answer) for answer in self._answers]
            rows = [[text[row.start : row.end] for row in wrapped(text, _whole(columns[0]))] for text in texts]
            height = max(map(len, rows))
            padded = [[*each, *[""] * (height - len(each))] for each in rows]
            lines = [self._line(columns, list(texts), [_QUIET] * len(columns)) for texts in zip(*padded, strict=True)]
            self._region.draw(lines, [])

    def _columns(self) -> list[_Column]:
        """The columns, one for each side; a single one where they would be too narrow."""
        width, count = self._region.size.columns - 1, len(self._flows)
        bars = 0 if not self._measured else 1 + WIDTH + (_NUMBER if self._numbers else 0)
        each = (width - 3 * (count - 1)) // count
        if each - bars < _NARROWEST:
            each, count = width, 1
        bars = bars if each - bars >= 1 else 0
        return [_Column(number * (each + 3), max(1, each - bars), bars) for number in range(count)]

    def _beside(self, columns: Sequence[_Column]) -> tuple[list[Line], list[Line]]:
        rows = [flow.rows(column.text) for flow, column in zip(self._flows, columns, strict=True)]
        ready = [len(each) if flow.ended else len(each) - 1 for flow, each in zip(self._flows, rows, strict=True)]
        height = max(map(len, rows))
        whole = all(flow.ended for flow in self._flows)
        # A side that has ended has nothing more to say in further rows.
        open_ends = [count for count, flow in zip(ready, self._flows, strict=True) if not flow.ended]
        stays = height if whole else max(0, min(open_ends))
        lines = [
            self._rows(columns, [each[row] if row < len(each) else None for each in rows]) for row in range(height)
        ]
        for flow, each in zip(self._flows, rows, strict=True):
            flow.commit(min(stays, len(each)))
        heading: list[Line] = []
        # In a window of another width the names stand above the columns again, before a row that stays: while a window
        # is being drawn larger, few do.
        if self._headed != _ALL or (stays and self._headed_at != columns):
            names = [_shortened(name, _whole(columns[0])) for name in self._names]
            heading = [self._line(columns, names, [_HEADING] * len(columns))]
            self._headed, self._headed_at = _ALL, columns
        return [*heading, *lines[:stays]], lines[stays:]

    def _below(self, column: _Column) -> tuple[list[Line], list[Line]]:
        """One side below the other: the next begins when the one before has ended."""
        stays: list[Line] = []
        live: list[Line] = []
        for number, flow in enumerate(self._flows):
            rows = flow.rows(column.text)
            done = len(rows) if flow.ended else max(0, len(rows) - 1)
            if rows and len(self._flows) > 1 and self._headed != number:
                stays.append(self._line([column], [_shortened(self._names[number], _whole(column))], [_HEADING]))
                self._headed = number
            drawn = [self._rows([column], [row]) for row in rows]
            stays += drawn[:done]
            live += drawn[done:]
            flow.commit(done)
            if not flow.ended:
                break
            answer = self._answers[number]
            if answer is not None:
                self._answers[number] = None
                texts = self._facts(answer)
                stays += [
                    self._line([column], [texts[row.start : row.end]], [_QUIET])
                    for row in wrapped(texts, _whole(column))
                ]
        return stays, live

    def _facts(self, answer: Answer | None) -> str:
        if answer is None:
            return ""
        speed = f", {answer.tokens / answer.seconds:.3g}/s" if answer.seconds and answer.tokens else ""
        mean = "" if answer.mean is None else f", mean {figure(answer.mean)}"
        return f"{answer.tokens} token{'s' * (answer.tokens != 1)}{speed}{mean}{_ENDINGS[answer.reason]}"

    def _rows(self, columns: Sequence[_Column], rows: Sequence[FlowRow | None]) -> Line:
        """One row of each column with its bar."""
        parts: list[tuple[int, str, Style | None]] = []
        for column, row in zip(columns, rows, strict=True):
            if row is None:
                continue
            parts.append((column.at, row.text, _QUIET if row.thought else None))
            if row.component is not None and column.bars:
                at = column.at + column.text + 1
                parts.append((at, self._bars.bar(row.component), _BAR))
                if self._numbers:
                    parts.append((at + WIDTH, f"{figure(row.component):>{_NUMBER}}", _QUIET))
        return self._placed(columns, parts)

    def _line(self, columns: Sequence[_Column], texts: Sequence[str], styles: Sequence[Style]) -> Line:
        parts = [(column.at, text, style) for column, text, style in zip(columns, texts, styles, strict=True)]
        return self._placed(columns, parts)

    def _placed(self, columns: Sequence[_Column], parts: Sequence[tuple[int, str, Style | None]]) -> Line:
        """Parts of a line, each put at its own cell.

        However wide a terminal takes a text for, columns stay straight.
        """
        separators = [(column.at - 2, self._separator, _QUIET) for column in columns[1:]]
        text, cells = "", 0
        for at, part, style in sorted([*parts, *separators], key=lambda each: each[0]):
            if not part.strip():
                continue
            text += ("" if at == 0 else f"\x1b[{at + 1}G") + self._styled(part, style)
            cells = max(cells, at + cell_len(part))
        return Line(text, cells)

    def _styled(self, text: str, style: Style | None) -> str:
        with self._console.capture() as captured:
            self._console.print(text, style=style, end="", soft_wrap=True, markup=False, highlight=False, emoji=False)
        return captured.get()


def _whole(column: _Column) -> int:
    return column.text + column.bars


def _shortened(text: str, width: int) -> str:
    """The text where it fits, else its end, which tells models apart."""
    if cell_len(text) <= width:
        return text
    while cell_len(text) > max(1, width - 1):
        text = text[1:]
    return f"…{text}"
