"""The lines of a terminal that are drawn again and again until they stay."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO


@dataclass(frozen=True)
class Line:
    """A line to be drawn.

    Attributes:
        text: with escape sequences, without a line break.
        cells: that it takes.
    """

    text: str
    cells: int


class Region:
    """The last lines on a terminal, below everything that stays.

    A window that has become narrower has broken the lines that were drawn in it, on most terminals: there they are
    counted as they are shown now.

    Args:
        file: the terminal.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._live: list[int] = []
        self._breaks = _breaks_lines()

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines of the window as it is now."""
        try:
            found = os.get_terminal_size(self._file.fileno())
        except (OSError, ValueError):
            found = os.terminal_size((80, 24))
        # A window that nobody has set says 0.
        return os.terminal_size((found.columns or 80, found.lines or 24))

    def draw(self, stays: Sequence[Line], live: Sequence[Line]) -> None:
        """Put lines in the place of those that were live: some that stay, and some to be drawn again.

        Of the live ones only the last are drawn where the window is not high enough.
        """
        size = self.size
        above = sum(max(1, -(-cells // size.columns)) if self._breaks else 1 for cells in self._live)
        above = min(above, size.lines - 1)
        shown = list(live)[-max(1, size.lines - 1) :]
        parts = ["\r", f"\x1b[{above}A" if above else ""]
        # A line is cleared first: its parts leave gaps between them.
        parts += [f"\x1b[2K{line.text}\r\n" for line in (*stays, *shown)]
        parts.append("\x1b[J")
        self._file.write("".join(parts))
        self._file.flush()
        self._live = [line.cells for line in shown]


def _breaks_lines() -> bool:
    """Whether a terminal breaks lines anew when its window changes; xterm, screen and Linux's console cut them off."""
    if "TMUX" in os.environ:
        return True
    cuts = "XTERM_VERSION" in os.environ or "STY" in os.environ
    return not (cuts or os.environ.get("TERM", "").startswith("linux"))
