"""A verb in several processes that a launcher started: the first one speaks, and one of them says what went wrong."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOBase
from typing import TextIO, TypeVar, cast

from weight_edit.cli.log_format import json_is_logged, log_event
from weight_edit.errors import UsageError
from weight_edit.utils.launch import launched

Result = TypeVar("Result")

_PATIENCE = 5.0
"""Seconds in which the first process may still say what ended the run, before another one does."""


class _Nowhere(TextIOBase):
    """A stream whose text goes nowhere."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Drop the text; returns its length."""
        return len(text)


def shared(work: Callable[[], Result], *, divided: bool) -> tuple[Result, Mapping[str, object]]:
    """The result of a verb whose prompts several processes share, and what each of them did, as JSON values.

    Args:
        work: the verb's function, which all processes call.
        divided: whether it can be shared.

    Raises:
        UsageError: it cannot.
        ProcessError: another process ended.
    """
    from weight_edit.runtime.processes import facts, together

    with together():
        if not divided:
            raise UsageError(
                f"this verb runs in one process, and {launched().count} were started: call it without the launcher; "
                "find and evaluate share their prompts among several"
            )
        return work(), facts()


@contextmanager
def one_voice() -> Iterator[None]:
    """Within the context, processes other than the first write to no stream, and libraries in them neither."""
    if launched().first:
        yield
        return
    nowhere = cast(TextIO, _Nowhere())
    with redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def may_tell() -> bool:
    """Whether this process says what ended the run: the first one does, and another only where it does not."""
    if not launched().several or "weight_edit.runtime.processes" not in sys.modules:
        # What is wrong before the processes are connected is wrong in all of them.
        return launched().first or _after_first()
    from weight_edit.runtime.processes import last_joined

    processes = last_joined()
    if launched().first:
        if processes is not None:
            processes.told()
        return True
    if processes is None:
        return _after_first()
    if threading.current_thread() is threading.main_thread():
        # The launcher ends the others as soon as one has died, and nobody would say anything where that was the first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return processes.may_tell(_PATIENCE)


def _after_first() -> bool:
    """False, after the time that the first process may take to say what all have found.

    The launcher ends all others as soon as one has ended: one that is quicker than the first would silence it.
    """
    time.sleep(_PATIENCE)
    return False


def may_trace() -> bool:
    """Whether this process shows the traceback of a mistake of ours, which all of several processes may make."""
    if not launched().several or "weight_edit.runtime.processes" not in sys.modules:
        return launched().first
    from weight_edit.runtime.processes import last_joined

    processes = last_joined()
    return processes is None or processes.may_trace()


def tell(line: str, code: int) -> None:
    """Say in a line what ended the run, with the exit code, in one of the processes."""
    if may_tell():
        say_error(line, code)


def say_error(line: str, code: int) -> None:
    """Say in a line what went wrong: as an event where the log is one of events."""
    if not json_is_logged(sys.argv[1:]):
        print(f"weight-edit: {line}", file=sys.stderr if launched().first else sys.__stderr__, flush=True)
    elif launched().first:
        log_event("error", message=line, exit_code=code)
    else:
        with redirect_stderr(cast(TextIO, sys.__stderr__)):
            log_event("error", message=line, exit_code=code)
