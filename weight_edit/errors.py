"""The errors a user can meet; each has the exit code of the command line.

A message is one line, names the file, tensor, module or option, and says what to do about it.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:  # nothing is imported here: see the constructor
    from collections.abc import Mapping, Sequence
    from typing import Any


class WeightEditError(Exception):
    """Base of the errors that are shown as one line instead of a traceback.

    A message that speaks of an argument of a function has it between backticks, as Python knows it, with a value where
    there is one to give: "pass `overwrite=True`", "leave `layers` out", "`options: enter=found`". The error names that
    argument as its option too: the command line writes its flag in place of what stands between the backticks.

    No message has an access token in it, nor has that of the error from which it is raised. The line is plain, whatever
    names and texts of other people's files stand in it: line breaks are spaces, and control characters, which a
    terminal would obey, are escaped.

    Attributes:
        exit_code: of the command line.
        details: JSON values that go with the message, such as the table of candidates that were rejected.
        options: names of the arguments in the message; those of the error that is being handled are among them.
    """

    exit_code = 2
    details: "Mapping[str, Any]"
    options: "tuple[str, ...]" = ()

    def __init__(self, *args: object, option: "str | Sequence[str] | None" = None) -> None:
        # Here, because this file is imported with the package, when the current folder, which may be a downloaded
        # model's, can still stand before the standard library; see `__main__`.
        import sys

        from weight_edit.redaction import redact_error, redacted

        handled = sys.exc_info()[1]
        named = (option,) if isinstance(option, str) else tuple(option or ())
        # Its message often stands in the new one.
        earlier = handled.options if isinstance(handled, WeightEditError) else ()
        self.options = tuple(dict.fromkeys((*named, *earlier)))
        self.details = {}
        super().__init__(*(plain(redacted(arg)) if isinstance(arg, str) else arg for arg in args))
        redact_error(handled)

    def _render_traceback_(self) -> "list[str]":
        """What IPython prints of it: the line of the cell, and the message.

        All that lies between them is this package's own; `traceback.print_last()` has it.
        """
        import os
        import traceback
        from pathlib import Path

        here = f"{Path(__file__).parent}{os.sep}"
        lines = []
        for frame in traceback.extract_tb(self.__traceback__):
            if frame.filename.startswith(here):
                break
            # The file of a cell has a name that says nothing; frames of IPython itself come before it.
            lines = [f"line {frame.lineno}: {frame.line}"] if frame.line else []
        return [*lines, f"{type(self).__name__}: {self}"]


class UsageError(WeightEditError):
    """The call or its input is wrong: a missing file, an empty prompt set, an unknown option."""

    exit_code = 2


class OutOfMemoryError(UsageError):
    """Memory runs out with the least that can be asked at once; nothing is wrong with what was asked."""


class UnsupportedError(WeightEditError):
    """This model or edit is not supported; the message names the module, tensor or reason."""

    exit_code = 3


class VerificationError(WeightEditError):
    """A check of an edited checkpoint failed; the message names the check and the figure."""

    exit_code = 4


class ProcessError(WeightEditError):
    """Another process of the run has ended, or went another way; the message says which as far as that is known."""

    exit_code = 1


FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions that foreign code (a model's config, constructor, template) raises on bad data."""


def plain(text: str) -> str:
    """The text in one line without control characters."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def first_line(error: BaseException) -> str:
    """An error's message on one line; its class name if there is no message."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    # "Validation error:" alone says nothing.
    short = 2 if lines and lines[0].endswith(":") else 1
    return " ".join(lines[:short]) or type(error).__name__
