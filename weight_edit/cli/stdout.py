"""Standard output that may not take what is printed: a full disk, a closed descriptor; told from all other errors."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TextIO, cast

from weight_edit.errors import UsageError


class StdoutError(UsageError):
    """Standard output cannot be written."""


class CheckedStdout:
    """Standard output whose failures are `StdoutError`s; a pipe whose reader has gone is one no more than before.

    Args:
        stream: what it writes to, and otherwise acts as.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; returns the number of characters."""
        with self._told():
            return self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all texts."""
        with self._told():
            self._stream.writelines(lines)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What Python still holds would fail once more when it ends, with an exit code of its own.
            with suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)
            if isinstance(error, BrokenPipeError):
                raise
            raise StdoutError(f"standard output cannot be written: {error.strerror}") from error

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def checked_stdout() -> Iterator[None]:
    """Within the context, and at its end, what cannot be printed is a `StdoutError`."""
    with redirect_stdout(cast(TextIO, CheckedStdout(sys.stdout))):
        yield
        sys.stdout.flush()


@contextmanager
def printing() -> Iterator[None]:
    """Within the context, the result of work that is done is printed: where it cannot be, that alone is lost."""
    try:
        yield
        sys.stdout.flush()
    except StdoutError as error:
        error.args = (f"{error}; what was done stands, and only its result is not printed",)
        raise
