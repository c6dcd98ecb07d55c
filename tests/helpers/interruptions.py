"""Processes that end in the middle of their work, and the hidden folders that they leave."""

import os
from collections.abc import Callable
from pathlib import Path


def exit_code(work: Callable[[], None]) -> int:
    """The exit code of a process of its own that does some work."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def hidden(folder: Path) -> list[str]:
    """Names of the hidden files and folders in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
