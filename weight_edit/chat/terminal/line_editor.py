"""The line editor of a chat: history, pasted lines, completion of commands."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.styles import Style

from weight_edit.chat.terminal.commands import COMMANDS
from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.whole_file import check_target
from weight_edit.errors import UsageError

_FILES = ("save", "save-chat")


class CommandCompleter(Completer):
    """Completes a command's name, and its argument where that is one of few or a file's path."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The completions of what stands before the cursor; none of a prompt."""
        text = document.text_before_cursor
        if not text.startswith("/") or text.startswith("//") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            for each, command in COMMANDS.items():
                if each.startswith(name):
                    shown = f"/{each} {command.usage}".rstrip()
                    yield Completion(each, -len(name), display=shown, display_meta=command.summary)
            return
        if name.rstrip("!") in _FILES:
            yield from self._paths.get_completions(Document(argument, len(argument)), complete_event)
        elif name in COMMANDS:
            yield from (Completion(v, -len(argument)) for v in COMMANDS[name].values() if v.startswith(argument))


def line_history(path: Path | None) -> History:
    """What was typed before: of a file that none but the user can read, or of this chat alone where it is None.

    Raises:
        UsageError: the file cannot be written, or is none.
    """
    if path is None:
        return InMemoryHistory()
    check_target(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600))
    except OSError as error:
        name = printable(str(path))
        raise UsageError(f"{name} cannot be written: {os.strerror(error.errno or 0)}", option="history") from error
    return FileHistory(str(path))


class LineEditor:
    """Reads prompts and commands from a terminal.

    Args:
        history: of the lines.
        state: what stands below the line, asked for whenever it is drawn.
    """

    def __init__(self, history: History, state: Callable[[], str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=history,
            completer=CommandCompleter(),
            complete_while_typing=True,
            multiline=True,
            key_bindings=_bindings(),
            prompt_continuation=FormattedText([("", "  ")]),
            bottom_toolbar=lambda: FormattedText([("", state())]),
            style=Style.from_dict({"bottom-toolbar": "noreverse", "bottom-toolbar.text": "noreverse"}),
        )

    def read(self) -> str:
        """The next prompt, of one or more lines.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed on an empty line; elsewhere it clears the line.
            EOFError: Ctrl-D was pressed on an empty line.
        """
        while True:
            try:
                return self._session.prompt(FormattedText([("bold", "> ")]))
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise


def _bindings() -> KeyBindings:
    """Enter sends, Alt-Enter begins a new line; a completion that is marked is taken first."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None
            return
        buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
