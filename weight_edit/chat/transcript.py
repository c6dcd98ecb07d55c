"""A chat written to a file: JSON with every token and component, or Markdown to be read."""

import json
import re
from pathlib import Path

from weight_edit.chat.session import ChatSession
from weight_edit.chat.turns import Answer
from weight_edit.checkpoint.whole_file import begins_with, check_free, save_whole
from weight_edit.errors import UsageError
from weight_edit.utils.json import json_safe

BEGINNINGS = {".json": '{\n  "sides": [', ".md": "# A chat with "}
"""How a chat's file begins, by its ending: what begins otherwise is not ours to replace."""


def check_transcript(path: Path, *, overwrite: bool = False) -> None:
    """Refuse a file that a chat cannot be written to.

    Raises:
        UsageError: it has another ending, there is a file already that is no chat or may not be replaced, or it is no
            regular file.
    """
    if path.suffix not in BEGINNINGS:
        raise UsageError(f"{path}: the name of a chat's file ends in {' or '.join(BEGINNINGS)}")
    check_free(path, overwrite, lambda file: begins_with(file, BEGINNINGS[path.suffix]))


def save_transcript(session: ChatSession, path: Path) -> None:
    """Write the chat as it is now, in place of what is there.

    Raises:
        UsageError: it cannot be written.
    """
    if path.suffix == ".md":
        save_whole(path, markdown(session))
        return
    text = json.dumps(json_safe(session.to_dict()), indent=2, ensure_ascii=False, allow_nan=False)
    save_whole(path, f"{text}\n".encode("utf-8", "backslashreplace"))


def markdown(session: ChatSession) -> str:
    """The chat as Markdown: prompts and answers as quotations, so that nothing in them is taken for structure."""
    names = [_code(side.name) for side in session.sides]
    parts = [f"# A chat with {' beside '.join(names[::-1])}", ""]
    if session.edit is not None:
        parts += [f"Edit at the end: {session.edit.described}.", ""]
    if session.options.system:
        parts += ["System prompt:", "", _quoted(session.options.system), ""]
    for number, turn in enumerate(session.turns, start=1):
        parts += [f"## {number}", "", "Prompt:", "", _quoted(turn.prompt), ""]
        for name, answer in zip(names, turn.answers, strict=True):
            parts += [f"{name}{_facts(answer)}:", "", _quoted(answer.text or "(no answer)"), ""]
    return "\n".join(parts)


def _facts(answer: Answer) -> str:
    said = [
        *([] if answer.edit is None else [answer.edit]),
        *([] if answer.mean is None else [f"mean component {answer.mean:.3g}"]),
        *([] if answer.reason == "end" else [{"length": "cut at the limit", "stopped": "stopped"}[answer.reason]]),
    ]
    return f" ({'; '.join(said)})" if said else ""


def _code(name: str) -> str:
    """A name as code, so that nothing in it is taken for structure."""
    return f"`{name.replace('`', chr(39))}`"


def _quoted(text: str) -> str:
    # As code: a quotation alone would still run HTML where a page shows it.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return "\n".join(f"> {line}".rstrip() for line in [f"{fence}text", *text.splitlines(), fence])
