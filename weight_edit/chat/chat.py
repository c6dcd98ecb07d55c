"""The chat that the command line holds: on a terminal, or with what comes through a pipe."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.chat.opening import open_chat
from weight_edit.chat.session import ChatSession
from weight_edit.chat.terminal.commands import ChatState
from weight_edit.chat.terminal.flow import SHOWN
from weight_edit.chat.transcript import check_transcript, save_transcript
from weight_edit.errors import UsageError
from weight_edit.utils.cache_folder import cache_folder
from weight_edit.utils.names import check_known


@dataclass(frozen=True)
class ChatResult:
    """A chat that has ended.

    Attributes:
        session: with all that was said.
        wrong: the lines from a pipe that could not be answered.
    """

    session: ChatSession
    wrong: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return self.session.to_dict()


def hold_chat(
    model: str | Path,
    *,
    shown: str = "lines",
    save_chat: Path | None = None,
    overwrite: bool = False,
    history: bool = False,
    silent: bool = False,
    **opening: Any,
) -> ChatResult:
    """Open a chat and hold it with whoever is at the terminal, or with the lines of a pipe.

    Args:
        model: and `opening`, see `open_chat`.
        shown: what stands in a row of an answer, one of `SHOWN`.
        save_chat: a file that the chat is written to after each turn.
        overwrite: that file may be replaced.
        history: keep the lines that are typed in the cache folder, for other chats.
        silent: write no answers: whoever called takes the whole of it.

    Raises:
        UsageError, UnsupportedError: as `open_chat`, `check_transcript` and `line_history`.
    """
    check_known("way to show answers", shown, SHOWN)
    if save_chat is not None:
        check_transcript(save_chat, overwrite=overwrite)
    lines = _history_file() if history else None
    state = ChatState(open_chat(model, **opening), shown=shown, kept=save_chat)
    if save_chat is not None:
        # What cannot be written is said before anything else is.
        save_transcript(state.session, save_chat)
    if not silent and _at_terminal():
        from weight_edit.chat.terminal.conversation import Conversation

        Conversation(state, lines).run()
        return ChatResult(state.session)
    from weight_edit.chat.terminal.piped import converse

    if sys.stdin.isatty():
        print("type prompts, a line each; Ctrl-D ends", file=sys.stderr, flush=True)
    return ChatResult(state.session, converse(state, sys.stdin, None if silent else sys.stdout))


def _at_terminal() -> bool:
    """Whether somebody types and reads here, on a terminal that can move its cursor."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")


def _history_file() -> Path:
    folder = cache_folder()
    if folder is None:
        raise UsageError("there is no cache folder to keep lines in; leave `history` out", option="history")
    return folder / "chat-history"
