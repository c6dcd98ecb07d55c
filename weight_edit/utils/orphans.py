"""Child processes that end with their parent, even if that is killed.

The parent holds the one end of a pipe that nobody writes to; when it is gone, whoever reads the other end sees so.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PIPE = "WEIGHT_EDIT_PARENT"
"""The environment variable that tells a child the descriptor to watch."""


@contextmanager
def leash() -> Iterator[int]:
    """A descriptor for `pass_fds`: a child that watches it ends at the end of the block."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def end_with_parent() -> None:
    """End this process when the holder of its `leash` lets go or is gone, if it has one."""
    told = os.environ.pop(PIPE, "")
    if told.isdecimal():
        threading.Thread(target=_watch, args=(int(told),), daemon=True, name="leash").start()


def _watch(descriptor: int) -> None:
    os.read(descriptor, 1)
    os._exit(1)
