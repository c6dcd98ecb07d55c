"""A terminal whose screen tests can read: what a program writes to it, carried out as a terminal does."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time
from collections.abc import Callable
from types import TracebackType

from rich.cells import cell_len

_ESCAPE = re.compile(r"\x1b(?:\[([?>]?)([0-9;]*)([A-Za-z])|\][^\x07]*\x07|[=>78]|\([AB0])")


class Screen:
    """The cells of a terminal; what the programs here do not use is left out.

    Attributes:
        raw: all that was written.
        obeyed: the final letters of the escape sequences that were carried out.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.columns, self.lines = columns, lines
        self.raw = ""
        self.obeyed: set[str] = set()
        self._rows: list[dict[int, str]] = [{}]
        self._row = self._column = 0
        self._top = 0

    def write(self, text: str) -> None:
        """Carry out what a program writes."""
        self.raw += text
        place = 0
        while place < len(text):
            found = _ESCAPE.match(text, place)
            if found:
                place = found.end()
                self._obey(found[2] or "", found[3] or "")
                continue
            self._put(text[place])
            place += 1

    @property
    def text(self) -> str:
        """All rows, those that have scrolled away too, without white space at their ends."""
        return "\n".join(self._shown(row) for row in self._rows).rstrip("\n")

    def _shown(self, row: dict[int, str]) -> str:
        width = max(row, default=-1) + 1
        return "".join(row.get(column, " ") for column in range(width)).rstrip()

    def _put(self, character: str) -> None:
        if character == "\n":
            self._down()
        elif character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(0, self._column - 1)
        elif character.isprintable():
            size = cell_len(character)
            if self._column + size > self.columns:
                self._column = 0
                self._down()
            row = self._rows[self._row]
            if size == 0 and self._column:
                row[self._column - 1] = row.get(self._column - 1, "") + character
                return
            row[self._column] = character
            for other in range(1, size):
                row[self._column + other] = ""
            self._column += size

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append({})
        self._top = max(self._top, self._row - self.lines + 1)

    def _obey(self, numbers: str, letter: str) -> None:
        self.obeyed.add(letter)
        values = [int(each) for each in numbers.split(";") if each]
        first = values[0] if values else 0
        row = self._rows[self._row]
        if letter == "A":
            self._row = max(self._top, self._row - max(1, first))
        elif letter == "B":
            for _ in range(max(1, first)):
                self._down()
        elif letter == "C":
            self._column += max(1, first)
        elif letter == "D":
            self._column = max(0, self._column - max(1, first))
        elif letter == "G":
            self._column = max(1, first) - 1
        elif letter == "K":
            for column in [each for each in row if first == 2 or each >= self._column]:
                del row[column]
        elif letter == "J" and first == 0:
            for column in [each for each in row if each >= self._column]:
                del row[column]
            del self._rows[self._row + 1 :]


class Terminal:
    """A program in a child process on a pseudo-terminal of its own.

    Args:
        work: what the child does; it gives the exit code.
        columns, lines: of the window.
    """

    def __init__(self, work: Callable[[], int], columns: int = 80, lines: int = 24) -> None:
        self.screen = Screen(columns, lines)
        self._child, self._file = pty.fork()
        if not self._child:
            code = 70
            try:
                sys.stdin, sys.stdout, sys.stderr = (os.fdopen(fd, mode) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))
                os.environ |= {"TERM": "xterm-256color", "XTERM_VERSION": "cuts lines off, as this one does"}
                os.environ.pop("TMUX", None)
                code = work()
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        self.resize(columns, lines)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self._file)
        os.waitpid(self._child, 0) if self._child else None

    def send(self, text: str) -> None:
        """Press keys."""
        os.write(self._file, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """Give the window another size; the child is told."""
        self.screen.columns, self.screen.lines = columns, lines
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait(self, text: str, seconds: float = 60) -> str:
        """The screen once it shows a text."""
        end = time.monotonic() + seconds
        while text not in self.screen.text:
            assert time.monotonic() < end, f"{text!r} is not on the screen:\n{self.screen.text}"
            if not self._read(0.2):
                assert text in self.screen.text, f"it ended without {text!r}:\n{self.screen.text}"
        return self.screen.text

    def exit_code(self, seconds: float = 60) -> int:
        """The exit code once the child has ended."""
        end = time.monotonic() + seconds
        while self._read(0.2):
            assert time.monotonic() < end, f"it goes on:\n{self.screen.text}"
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, seconds: float) -> bool:
        """Whether the child goes on; what it wrote is carried out, and what it asks of the terminal is answered."""
        ready, _, _ = select.select([self._file], [], [], seconds)
        if not ready:
            return True
        try:
            data = os.read(self._file, 65536)
        except OSError:
            return False
        if not data:
            return False
        text = data.decode(errors="replace")
        self.screen.write(text)
        if "\x1b[6n" in text:
            # Where the cursor is.
            self.send("\x1b[1;1R")
        return True
