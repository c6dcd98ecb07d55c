"""Foreign functions run in a process of their own, with limits on time and memory.

A chat template is a program. Its sandbox keeps it from files, not from endless loops, and not from texts that double
until memory is full. A signal or a tracing function stops neither outside of the main thread nor within C code; a
process can be ended. It is a fork of this one, so that whatever the function holds need not be sent to it.
"""

import gc
import json
import os
import pickle
import resource
import signal
import threading
import warnings
import weakref
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from weight_edit.errors import FOREIGN_ERRORS

SECONDS = 5
"""Processor seconds before any call; each `CALLS` calls and `CHARACTERS` in them add one.

A chat template takes a thousandth of a second, and tokens of a long text one for each million characters. Counted for
all calls together, so that one that is slow each time is stopped as well.
"""

CALLS = 10
CHARACTERS = 50_000

PATIENCE = 120.0
"""The limit on wall-clock seconds, which exceed processor seconds on a busy machine."""

MEMORY = 1 << 30
"""The limit on bytes beyond the memory of this process when it forks."""

_LONGEST = 1 << 28
_LONGEST_REASON = 2000


class LimitError(RuntimeError):
    """The function exceeded its time or memory and was stopped."""


class ForeignError(RuntimeError):
    """The function raised an error; the message is that error's."""


class Limited:
    """A function in a process of its own, started by the first call and after each stop.

    What the function holds is as it was at that time. Calls by several threads wait for one another.

    Args:
        function: its results must be JSON: texts, numbers, lists of them.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._end: Callable[[], object] | None = None
        self._connection: Connection | None = None
        self._owner = 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The function's result for these arguments, which must be picklable.

        Raises:
            LimitError: more than the time or the `MEMORY` that it has.
            ForeignError: the function failed.
        """
        if not hasattr(os, "fork"):
            return self._function(*arguments, **options)
        with self._lock:
            try:
                kind, value = self._asked(arguments, options)
            except BaseException:
                # Whatever comes later must not be taken for the answer to another question.
                self.close()
                raise
        if kind == "failed":
            raise ForeignError(value)
        return value

    def close(self) -> None:
        """End the process, if there is one."""
        if self._end is not None:
            self._end()
        self._end = self._connection = None

    def _asked(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[str, Any]:
        # A fork of this process has a connection that is its parent's.
        connection = self._connection if self._owner == os.getpid() else None
        if connection is None:
            connection = self._start()
        try:
            connection.send_bytes(pickle.dumps((arguments, options)))
            if connection.poll(PATIENCE):
                kind, value = json.loads(connection.recv_bytes(_LONGEST))
                return kind, value
        except (EOFError, OSError):
            # It was ended by a limit, or has said more than anybody needs.
            pass
        raise LimitError(
            f"it takes seconds of a processor, or more than {MEMORY >> 30} GiB of memory, so it was stopped"
        )

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        with warnings.catch_warnings():
            # Python warns of locks that other threads may hold; what runs here takes none of theirs.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _serve(self._function, theirs)
        theirs.close()
        self._connection, self._owner = ours, os.getpid()
        self._end = weakref.finalize(self, _end, child, ours, self._owner)
        return ours


def _end(child: int, connection: Connection, owner: int) -> None:
    if os.getpid() != owner:
        return
    connection.close()
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def _serve(function: Callable[..., Any], connection: Connection) -> NoReturn:
    """Answer calls until the other side is gone; never returns."""
    try:
        gc.disable()
        # Ctrl-C is for the parent, whose end ends this one.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Threads that a library has made are not here, nor may it make others out of what is left of them.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        kept = connection.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        _limit(resource.RLIMIT_AS, _size() + MEMORY if _size() else None)
        calls = characters = 0
        while True:
            asked = connection.recv_bytes()
            calls, characters = calls + 1, characters + len(asked)
            # A process of its own has used nothing of a processor when it begins.
            _limit(resource.RLIMIT_CPU, SECONDS + 1 + calls // CALLS + characters // CHARACTERS)
            arguments, options = pickle.loads(asked)
            connection.send_bytes(json.dumps(_answer(function, arguments, options)).encode())
    except (EOFError, OSError, MemoryError):
        pass
    finally:
        os._exit(0)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[str, Any]:
    from jinja2.exceptions import TemplateError

    try:
        value = function(*arguments, **options)
        json.dumps(value)
    except (TemplateError, *FOREIGN_ERRORS) as error:
        memory = f"it takes more than {MEMORY >> 30} GiB of memory" if isinstance(error, MemoryError) else ""
        return "failed", memory or " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
    return "done", value


def _limit(kind: int, most: int | None) -> None:
    """Set a resource limit, unless a lower one is set already."""
    if most is None:
        return
    _, hard = resource.getrlimit(kind)
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _size() -> int:
    """This process's mapped memory in bytes; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return 0
    return pages * resource.getpagesize()
