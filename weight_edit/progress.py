"""Progress bars, on stderr only, so that stdout stays one JSON document under `--json`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Bar(Protocol):
    """What a running bar offers: `advance(n)` moves it on by n units, `say(line)` writes a line above it."""

    def advance(self, n: int = 1) -> None: ...

    def say(self, line: str) -> None: ...


class _Silent:
    def advance(self, n: int = 1) -> None:
        """Move nothing: the bar is off."""

    def say(self, line: str) -> None:
        """Write the line all the same, where only the terminal is missing."""
        if not _quiet:
            print(line, file=sys.stderr, flush=True)


_quiet = True


def set_quiet(quiet: bool) -> None:
    """Turn bars off (True, the default in Python) or on (False, what the command line does)."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether bars are off, for libraries that draw their own."""
    return _quiet


def enable_progress_bars() -> None:
    """Show progress in Python, as the command line does; it is off until asked for."""
    set_quiet(False)


def disable_progress_bars() -> None:
    """Show no progress again."""
    set_quiet(True)


def are_progress_bars_disabled() -> bool:
    """Whether progress is off."""
    return is_quiet()


def announce(line: str) -> None:
    """Say on stderr what begins now; nothing when quiet or when stderr is no terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not _quiet and console.is_terminal:
        console.print(line, markup=False, highlight=False)


@contextmanager
def bar(description: str, total: int, unit: str = "") -> Iterator[Bar]:
    """A progress bar over `total` units of work; nothing is drawn when quiet or when stderr is no terminal.

    Args:
        description: what is being done, e.g. "activations".
        total: number of units.
        unit: "bytes" shows sizes and a rate, anything else shows counts.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if _quiet or not console.is_terminal:
        yield _Silent()
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}"), BarColumn(), *counts, TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(description, total=total)

        class _Drawn:
            def advance(self, n: int = 1) -> None:
                progress.advance(task, n)

            def say(self, line: str) -> None:
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield _Drawn()
