"""The command line's entry point: every error becomes one line and an exit code."""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from traceback import format_exception
from typing import TYPE_CHECKING, TextIO, cast

import typer

from weight_edit.cli.app import app
from weight_edit.cli.flags import with_flags
from weight_edit.cli.help_pages import as_json, flags
from weight_edit.cli.launched import may_tell, may_trace, one_voice, say_error
from weight_edit.cli.log_format import json_is_logged, log_event
from weight_edit.cli.stdout import StdoutError, checked_stdout
from weight_edit.errors import WeightEditError, first_line, plain
from weight_edit.redaction import RedactedStream, redacted, show_uncaught
from weight_edit.utils.json import json_safe

if TYPE_CHECKING:
    from typer._click import Parameter

__all__ = ["app", "main"]

_PARSING = re.compile(r"Input should be a valid (number|integer), unable to parse string as an? (number|integer)")
"""What the library that reads options says of a word in place of a number."""


def main() -> None:
    """Run the command line; a user's error gives one line and an exit code, no traceback."""
    _open_streams()
    sys.excepthook = show_uncaught
    # Libraries warn and log there too, some of them with what they were about to send.
    with redirect_stderr(cast(TextIO, RedactedStream(sys.stderr))), one_voice():
        try:
            _run()
        except Exception as error:
            # A mistake of ours that all of several processes make has one traceback.
            if may_trace():
                if not json_is_logged(sys.argv[1:]):
                    raise
                trace = redacted("".join(format_exception(error)))
                log_event("error", message=f"{type(error).__name__}: {first_line(error)}", exit_code=1, traceback=trace)
            raise SystemExit(1) from None


def _open_streams() -> None:
    """Open what the caller closed of stdin, stdout and stderr: else the next file that is opened takes its place."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _run() -> None:
    as_json.set(None)
    flags.set(None)
    try:
        with checked_stdout():
            code = app(standalone_mode=False)
    except WeightEditError as error:
        # What the error is about, for whoever shows it beside a field.
        about = {"options": [*error.options]} if error.options else {}
        _fail(with_flags(str(error), error.options, flags.get()), error.exit_code, {**error.details, **about})
    except typer.Abort:
        _fail("aborted", 1)
    except typer.TyperException as error:
        _fail(_misunderstood(error), 2)
    except (OSError, RecursionError, MemoryError, RuntimeError) as error:
        # CPython's words where the system has no threads left; other errors of that class are mistakes of ours, whose
        # traceback is wanted.
        mistake = isinstance(error, RuntimeError) and not isinstance(error, RecursionError)
        if mistake and not str(error).startswith("can't start new thread"):
            raise
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe (head, less) has gone; there is nobody left to tell.
            sys.stderr.close()
            raise SystemExit(1) from None
        _fail(f"{type(error).__name__}: {first_line(error)}", 2)
    # Without its own mode the library returns the exit code of what ended early, such as --version.
    if isinstance(code, int) and code:
        raise SystemExit(code)


def _misunderstood(error: typer.TyperException) -> str:
    """The message for an unknown option, value or verb, with the help to look at."""
    context = getattr(error, "ctx", None)
    message = _PARSING.sub("a number is wanted", " ".join(error.format_message().split()).rstrip("."))
    if not message:
        # No arguments at all: the help was printed.
        raise SystemExit(2) from None
    if context is not None and hasattr(error, "option_name") and hasattr(error, "possibilities"):
        message = _unknown_option(str(error.option_name), context.command.params)
    where = "weight-edit" if context is None or context.parent is None else f"weight-edit {context.info_name}"
    return f"{message[:1].lower()}{message[1:]}; see {where} --help"


def _unknown_option(option: str, params: "Sequence[Parameter]") -> str:
    """The message about an option that is none of a verb's parameters."""
    from weight_edit.cli.option_words import unknown_option

    known = {name for param in params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}
    arguments = {
        str(param.name): str(param.metavar or param.name).upper()
        for param in params
        if param.param_type_name == "argument"
    }
    return unknown_option(option, known, arguments)


def _fail(message: str, code: int, details: Mapping[str, object] | None = None) -> None:
    if not may_tell():
        raise SystemExit(code) from None
    message = redacted(message)
    if _json_is_asked_for():
        # Where standard output is what failed, the line on stderr is all that there is.
        with suppress(StdoutError), checked_stdout():
            print(json.dumps(json_safe({"error": message, "exit_code": code, **(details or {})})))
    elif details and "scores" in details:
        from rich.console import Console

        from weight_edit.cli.tables.results import rejected

        with suppress(StdoutError), checked_stdout():
            rejected(details, Console(emoji=False))
    say_error(plain(message), code)
    raise SystemExit(code) from None


def _json_is_asked_for() -> bool:
    """Whether JSON output is wanted: by the parsed options, else by the words given."""
    said = as_json.get()
    words = sys.argv[1:]
    return "--json" in words[: words.index("--") if "--" in words else None] if said is None else said
