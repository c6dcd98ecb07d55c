"""A watch over a task that runs: a function called every so often from a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context


@contextmanager
def watched(look: Callable[[], object], every: float) -> Iterator[None]:
    """Within the context, a function is called again and again: a step that takes minutes is looked at, too.

    Args:
        look: in a copy of the caller's context. A new thread has an empty one, in which nobody has said whether
            progress is on, who listens, or to which cell of a notebook an output belongs.
        every: seconds between two calls; the first is behind them.
    """
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every):
            look()

    watch = threading.Thread(target=copy_context().run, args=(repeat,), name="progress", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()
