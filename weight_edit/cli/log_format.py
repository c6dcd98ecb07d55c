"""The option `--log-format` of every verb that shows progress: stderr as plain text, or as one JSON object a line."""

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import wraps
from io import TextIOBase
from itertools import pairwise
from typing import Annotated, TextIO, cast

import typer

from weight_edit.utils.json import json_safe
from weight_edit.utils.progress_events import event_of, progress_events

FORMATS = ("auto", "json")
"""What stderr holds: a view of a terminal or plain lines, whichever fits; or events."""

OPTION = "--log-format"

LogFormat = Annotated[
    str, typer.Option(OPTION, help="Progress on stderr: auto is for people; json is one JSON object a line.")
]


def with_log_format(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb with the option, where it has `--quiet`; the command obeys it, and the function does not get it."""
    signature = inspect.signature(verb)
    if "quiet" not in signature.parameters:
        return verb

    @wraps(verb)
    def framed(*, log_format: str, **options: object) -> None:
        verb(**options)

    added = inspect.Parameter("log_format", inspect.Parameter.KEYWORD_ONLY, default="auto", annotation=LogFormat)
    signature = signature.replace(parameters=[*signature.parameters.values(), added])
    framed.__signature__ = signature  # type: ignore[attr-defined]
    framed.__annotations__ = {**verb.__annotations__, "log_format": LogFormat}
    return framed


def json_is_logged(words: list[str]) -> bool:
    """Whether the words of a call ask for events on stderr."""
    words = words[: words.index("--") if "--" in words else None]
    return f"{OPTION}=json" in words or (OPTION, "json") in pairwise(words)


@contextmanager
def logged_as_json(*, quiet: bool) -> Iterator[None]:
    """Within the context, stderr holds events alone; all that is printed there are messages.

    Args:
        quiet: without progress.
    """
    stream = _Events(sys.stderr)
    with (
        redirect_stderr(cast(TextIO, stream)),
        nullcontext() if quiet else progress_events(lambda event: stream.event(event)),
    ):
        try:
            yield
        finally:
            stream.close_line()


def log_event(event: str, **values: object) -> None:
    """Write an event on stderr."""
    line = json.dumps(json_safe(event_of(event, **values)), allow_nan=False)
    if isinstance(sys.stderr, _Events):
        sys.stderr.close_line()
        sys.stderr.line(line)
    else:
        print(line, file=sys.stderr, flush=True)


class _Events(TextIOBase):
    """A stream whose lines become events of the stream behind it.

    Args:
        stream: where they go.
    """

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._begun = ""

    def write(self, text: str) -> int:
        """Take a text; each whole line of it is a message."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._message(line)
        return len(text)

    def flush(self) -> None:
        """Send on what was written."""
        self._stream.flush()

    def fileno(self) -> int:
        """The descriptor behind it, for processes that are started."""
        return self._stream.fileno()

    def event(self, event: dict[str, object]) -> None:
        """Write an event."""
        self.line(json.dumps(json_safe(event), allow_nan=False))

    def line(self, line: str) -> None:
        """Write a line as it is."""
        self._stream.write(line + "\n")
        self._stream.flush()

    def close_line(self) -> None:
        """Send the last line, where nothing ended it."""
        begun, self._begun = self._begun, ""
        self._message(begun)

    def _message(self, line: str) -> None:
        # A library that draws a bar returns to the line's beginning each time.
        text = line.rsplit("\r", 1)[-1].rstrip()
        if text:
            self.event(event_of("message", text=text))
