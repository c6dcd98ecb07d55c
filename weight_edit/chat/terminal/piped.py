"""A chat without a terminal: prompts read line by line, answers written as plain text."""

import sys
from collections.abc import Generator
from typing import TextIO

from weight_edit.chat.terminal.commands import ChatState, Leave, as_commands, run_command
from weight_edit.chat.terminal.safe_text import safe_text
from weight_edit.chat.transcript import save_transcript
from weight_edit.chat.turns import Ended, Token
from weight_edit.errors import WeightEditError, plain


def converse(state: ChatState, lines: TextIO, out: TextIO | None) -> int:
    """Answer every line of a stream; gives the number of lines that went wrong.

    Of one side the answers alone are written, as they come; of two each has the side's name before it. What commands
    say, and what goes wrong, is on stderr.

    Args:
        state: the session, and how it is kept.
        lines: prompts and commands.
        out: where to; None writes nothing.
    """
    wrong = 0
    for line in lines:
        text = line.strip()
        if not text:
            continue
        try:
            if text.startswith("/") and not text.startswith("//"):
                outcome = run_command(state, text)
                for each in outcome.lines:
                    _note(each)
                reply = outcome.reply
            else:
                reply = state.session.reply(text.removeprefix("/") if text.startswith("//") else text)
            if reply is not None:
                _write(state, reply, out)
        except Leave:
            break
        except WeightEditError as error:
            wrong += 1
            _note(as_commands(error))
        if state.kept is not None:
            save_transcript(state.session, state.kept)
    return wrong


def _write(state: ChatState, reply: Generator[Token | Ended], out: TextIO | None) -> None:
    names = [side.name for side in state.session.sides]
    texts = ["" for _ in names]
    for event in reply:
        if isinstance(event, Token):
            texts[event.side] += safe_text(event.text)
            if out is not None and len(names) == 1:
                out.write(safe_text(event.text))
                out.flush()
    if out is None:
        return
    if len(names) > 1:
        out.writelines(f"[{safe_text(name)}] {text}\n" for name, text in zip(names, texts, strict=True))
    out.write("\n")
    out.flush()


def _note(line: str) -> None:
    print(plain(safe_text(line)), file=sys.stderr, flush=True)
