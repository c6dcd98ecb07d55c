"""A chat on a terminal: prompts read, replies drawn, and Ctrl-C at every moment."""

import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from weight_edit.chat.terminal.bars import Bars
from weight_edit.chat.terminal.commands import ChatState, Leave, as_commands, run_command, state_rows
from weight_edit.chat.terminal.drawing import ReplyDrawing
from weight_edit.chat.terminal.line_editor import LineEditor, line_history
from weight_edit.chat.terminal.safe_text import safe_text
from weight_edit.chat.transcript import save_transcript
from weight_edit.chat.turns import Ended, Token
from weight_edit.errors import WeightEditError, plain


class Conversation:
    """A chat between a person at a terminal and a session's sides.

    Args:
        state: the session, and how it is shown and kept.
        history: the file of the lines typed; None keeps none.

    Raises:
        UsageError: as `line_history`.
    """

    def __init__(self, state: ChatState, history: Path | None = None) -> None:
        self._state = state
        self._console = Console(highlight=False, emoji=False)
        encoding = (self._console.encoding or "").lower()
        self._bars = Bars(state.session.scale, ascii_only=not encoding.startswith("utf"))
        self._history = history
        self._editor = LineEditor(line_history(history), self._toolbar)

    def run(self) -> None:
        """Talk until the person leaves.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed twice at the prompt.
        """
        with _unechoed():
            self._greet()
            self._talk()

    def _talk(self) -> None:
        asked = False
        while True:
            try:
                line = self._editor.read()
            except KeyboardInterrupt:
                if asked:
                    raise
                asked = True
                self._say("Ctrl-C once more leaves, and so does Ctrl-D", style="dim")
                continue
            except EOFError:
                return
            asked = False
            try:
                self._answer(line)
            except Leave:
                return
            except KeyboardInterrupt:
                self._say("dropped", style="dim")
            except WeightEditError as error:
                self._say(as_commands(error), style="red")

    def _greet(self) -> None:
        names = [safe_text(side.name) for side in self._state.session.sides]
        self._say(" beside ".join(names), style="bold")
        table = Table.grid(padding=(0, 2), pad_edge=True)
        for name, text in state_rows(self._state):
            table.add_row(Text(name), Text(plain(text)))
        self._console.print(table, style="dim")
        kept = "" if self._state.kept is not None else " Nothing of this chat is kept unless /save-chat writes it."
        if self._history is not None:
            kept = f" The lines you type are kept in {safe_text(str(self._history))}."
        self._say(f"/help lists the commands, Ctrl-D leaves.{kept}", style="dim")

    def _answer(self, line: str) -> None:
        text = line.strip()
        if not text:
            return
        if text.startswith("/") and not text.startswith("//"):
            outcome = run_command(self._state, text)
            for each in outcome.lines:
                self._say(each, style="dim")
            reply = outcome.reply
            if reply is None:
                return
        else:
            reply = self._state.session.reply(text[1:] if text.startswith("//") else line)
        try:
            self._draw(reply)
        finally:
            if self._state.kept is not None:
                save_transcript(self._state.session, self._state.kept)

    def _draw(self, reply: Generator[Token | Ended]) -> None:
        drawing = ReplyDrawing(self._state.session, self._console, self._bars, self._state.shown)
        try:
            with closing(reply), _stopping(self._state.session.stop):
                # The names at once: a long prompt takes its time before the first token.
                drawing.draw()
                for event in reply:
                    drawing.show(event)
        finally:
            # What was said before a failure or an impatient Ctrl-C stays to be seen.
            drawing.finish()
        self._console.print()

    def _toolbar(self) -> str:
        session = self._state.session
        edit = [] if session.edit is None else [session.edit.described]
        drawn = f"temperature {session.sampling.temperature:g}" if session.sampling.temperature else "greedy"
        count = len(session.turns)
        return " · ".join([*edit, drawn, f"{count} turn{'s' * (count != 1)}"])

    def _say(self, text: str, style: str) -> None:
        for line in safe_text(text).split("\n"):
            self._console.print(plain(line) if line else "", style=style, markup=False)


@contextmanager
def _stopping(stop: Any) -> Iterator[None]:
    """Within the context, the first Ctrl-C stops the reply at its next token; the next one does not wait for it."""
    pressed = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _unechoed() -> Iterator[None]:
    """Within the context, what is typed while no line is edited waits for the next one, and is not shown before."""
    try:
        import termios

        terminal = sys.stdin.fileno()
        before = termios.tcgetattr(terminal)
    except (ImportError, OSError, ValueError):
        yield
        return
    silent = list(before)
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(terminal, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
