"""Access tokens: cleaned where they come in, and in no message that goes out, whichever library made it."""

import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

HIDDEN = "<token>"
"""What stands in a message where a token stood."""

_SHORTEST = 5
"""Tokens with fewer characters are hidden nowhere: they are no secrets, and parts of ordinary words."""

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# The Hub's own forms, for those that came from nowhere known: a misspelt option's value, a server's message.
_SHAPED = re.compile(r"\b(?:hf|hf_oauth|hf_jwt|api_org)_[A-Za-z0-9]{20,}")

_given: set[str] = set()


def cleaned(token: str) -> str:
    """A token as it was meant: without the line breaks and white space that copying and files put around it."""
    return token.strip()


def weakness(token: str) -> str | None:
    """Why a cleaned token cannot be sent, without a part of it; None where it can be."""
    place = next((number for number, c in enumerate(token, 1) if not "!" <= c <= "~"), None)
    return None if place is None else f"its character {place} of {len(token)} is none that a token can have"


def remember(token: str) -> None:
    """Hide this token in every message from now on, as it was given and cleaned."""
    _given.add(token)


def given_token(token: str | None) -> str | None:
    """The token as it was given, which no message has from now on."""
    if token is not None:
        remember(token)
    return token


def stored_tokens() -> Iterator[tuple[str, str]]:
    """Where the Hub's library finds a token when none is given, and that token, cleaned: in its order of choice."""
    for name in _VARIABLES:
        if token := cleaned(os.environ.get(name, "")):
            yield name, token
    hub = sys.modules.get("huggingface_hub.constants")
    path = os.environ.get("HF_TOKEN_PATH") if hub is None else hub.HF_TOKEN_PATH
    if path and (token := cleaned(_content(path))):
        yield str(path), token


def redacted(text: str) -> str:
    """The text without any token, also where it stands percent-encoded, as `repr` has it, or as JSON does."""
    known = {*_given, *(token for _, token in stored_tokens()), *(os.environ.get(name, "") for name in _VARIABLES)}
    # huggingface_hub puts together what line breaks part.
    known |= {form for token in known for form in (cleaned(token), "".join(token.splitlines()).strip())}
    # The longest first: what is written around a token goes with it.
    for form in sorted({form for token in known for form in _forms(token)}, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return _SHAPED.sub(HIDDEN, text)


def redact_error(error: BaseException | None) -> None:
    """Take tokens out of an error's message, and out of those that it came from, which tracebacks show too."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        try:
            leaks = redacted(str(error)) != str(error) or redacted(repr(error)) != repr(error)
        except Exception:  # noqa: BLE001
            # A message that cannot be made is not shown either.
            leaks = False
        if leaks:
            error.args = _plain(error.args)
            for name in ("strerror", "filename", "filename2", "msg", "server_message"):
                if isinstance(value := getattr(error, name, None), str):
                    setattr(error, name, redacted(value))
        if notes := getattr(error, "__notes__", None):
            notes[:] = _plain(notes)
        error = error.__cause__ or error.__context__


class RedactedStream:
    """A text stream that writes everything but tokens; all else is the stream's it stands for.

    Args:
        stream: where it goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without tokens; the number of characters that were given."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write all of them."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As `sys.excepthook` does it, for a fault of ours: the traceback, without tokens."""
    redact_error(error)
    sys.__excepthook__(kind, error, trace)


def _forms(token: str) -> set[str]:
    """The forms in which a token may appear in a message."""
    if len(token) < _SHORTEST:
        return set()
    # Bytes of the environment that are no UTF-8 are halves of surrogate pairs in a text.
    encoded = token.encode("utf-8", "replace")
    return {
        token,
        quote(encoded),
        quote(encoded, safe=""),
        quote_plus(encoded),
        repr(token)[1:-1],
        repr(encoded)[2:-1],
        json.dumps(token)[1:-1],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, bytes):
        return redacted(value.decode("utf-8", "replace")).encode()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)([_plain(item) for item in value])
    return value


def _content(path: str | Path) -> str:
    """The text of a token's file; empty where there is none to read."""
    try:
        found = Path(path).stat()
        # A pipe would wait for a writer.
        return _read(str(path), found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else ""
    except OSError:
        return ""


@lru_cache(maxsize=8)
def _read(path: str, modified: int, size: int) -> str:
    return Path(path).read_text("utf-8", "replace")[:10_000]
