"""Access tokens and keys: cleaned on input, and hidden in all messages of any library."""

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
"""The text that replaces a token in messages."""

_SHORTEST = 5
"""The length below which a token is not hidden: it is no secret, and part of words."""

_LONG = 16
"""The length from which a known token is taken for one wherever it stands, and not for a word."""

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
KEY_VARIABLES = ("WEIGHT_EDIT_API_KEY", "OPENAI_API_KEY")
"""Environment variables with the key of a chat server, the first that is set."""
# The forms of the Hub and of chat servers, for those that came from nowhere known: a misspelt option's value, a
# server's message.
_SHAPED = re.compile(r"\b(?:(?:hf|hf_oauth|hf_jwt|api_org)_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,})")

_given: set[str] = set()


def cleaned(token: str) -> str:
    """A token without the line breaks and white space from copying or files."""
    return token.strip()


def weakness(token: str) -> str | None:
    """The reason why a cleaned token cannot be sent, without any part of it; else None."""
    place = next((number for number, c in enumerate(token, 1) if not "!" <= c <= "~"), None)
    return None if place is None else f"its character {place} of {len(token)} is none that a token can have"


def remember(token: str) -> None:
    """Hide a token in every message from now on, as given and as cleaned."""
    _given.add(token)


def given_token(token: str | None) -> str | None:
    """The token as given, hidden in messages from now on."""
    if token is not None:
        remember(token)
    return token


def stored_tokens() -> Iterator[tuple[str, str]]:
    """The places of the Hub library's tokens, with the cleaned tokens, in its order."""
    for name in _VARIABLES:
        if token := cleaned(os.environ.get(name, "")):
            yield name, token
    hub = sys.modules.get("huggingface_hub.constants")
    path = os.environ.get("HF_TOKEN_PATH") if hub is None else hub.HF_TOKEN_PATH
    if path and (token := cleaned(_content(path))):
        yield str(path), token


def redacted(text: str) -> str:
    """The text without tokens, also if percent-encoded, or escaped by `repr` or JSON."""
    # The longest first: what is written around a token goes with it.
    for form in sorted({form for token in _known() for form in _forms(token)}, key=len, reverse=True):
        # Another token may begin as this one does: its rest would be told apart from it.
        rest = "[A-Za-z0-9]*" if _SHAPED.match(form) else ""
        text = re.sub(re.escape(form) + rest, HIDDEN, text)
    return _SHAPED.sub(HIDDEN, text)


def _known() -> set[str]:
    """All tokens and keys that were given or are stored, as they are and as they would be sent."""
    named = (os.environ.get(name, "") for name in (*_VARIABLES, *KEY_VARIABLES))
    known = {*_given, *(token for _, token in stored_tokens()), *named}
    # huggingface_hub puts together what line breaks part.
    return known | {form for token in known for form in (cleaned(token), "".join(token.splitlines()).strip())}


def holds_token(text: str) -> bool:
    """Whether a text holds something of a token's form, or one of those known here."""
    known = (form for token in _known() if len(cleaned(token)) >= _LONG for form in _forms(token))
    return _SHAPED.search(text) is not None or any(form in text for form in known)


def redact_error(error: BaseException | None) -> None:
    """Remove tokens from an error's message, and from the errors that it came from."""
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
    """A text stream that hides tokens and otherwise acts as the stream it wraps.

    Args:
        stream: where it goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text without tokens; returns the number of given characters."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write all texts without tokens."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook` that prints the traceback without tokens."""
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
    """The text of a token's file; empty if it cannot be read."""
    try:
        found = Path(path).stat()
        # A pipe would wait for a writer.
        return _read(str(path), found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else ""
    except OSError:
        return ""


@lru_cache(maxsize=8)
def _read(path: str, modified: int, size: int) -> str:
    return Path(path).read_text("utf-8", "replace")[:10_000]
