"""Notebooks: whether Python runs in one, and a progress bar there."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from weight_edit.errors import plain
from weight_edit.utils.watch import watched

if TYPE_CHECKING:
    from weight_edit.utils.progress import Meter

_TICK = 0.5
"""Seconds between two drawings of a bar."""


def in_notebook() -> bool:
    """Whether Python runs in a notebook's kernel; a terminal's IPython is none."""
    shell = _shell()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _shell() -> Any:
    library: Any = sys.modules.get("IPython")
    return None if library is None else library.get_ipython()


class _CellOutput:
    """The one output of a cell, in which its bars are drawn one after the other.

    A notebook keeps every output, an empty one too: with one for each bar, a cell that takes long would leave dozens.

    Attributes:
        cell: the number of the cell.
    """

    def __init__(self, cell: object) -> None:
        self.cell = cell
        self._handle: Any = None

    def show(self, html: str, text: str) -> None:
        """Show this in place of what was shown."""
        from IPython.display import display

        # The text is for a front end that shows no HTML.
        content = {"text/html": html, "text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


_last: _CellOutput | None = None


def _output() -> _CellOutput:
    """The output of the cell that runs."""
    global _last
    cell = getattr(_shell(), "execution_count", None)
    if _last is None or _last.cell != cell:
        _last = _CellOutput(cell)
    return _last


class _Drawn:
    """A bar in a notebook, a part of its cell's output."""

    def __init__(self, description: str, meter: "Meter", output: _CellOutput) -> None:
        self._description, self._meter, self._output = description, meter, output

    def advance(self, n: float = 1) -> None:
        """Advance by n units."""
        self._meter.advance(n)

    def say(self, line: str) -> None:
        """Print a line."""
        print(plain(line), file=sys.stderr)

    def draw(self) -> None:
        """Draw it as it is now."""
        total, count = self._meter.total, self._meter.count
        bar = "" if not total else f'<progress value="{min(count, total):g}" max="{total:g}"></progress> '
        task, far = plain(self._description), str(self._meter)
        self._output.show(f"<div>{escape(task)} {bar}{escape(far)}</div>", f"{task} {far}")

    def clear(self) -> None:
        """Leave nothing of it."""
        self._output.show("", "")


@contextmanager
def notebook_bar(description: str, meter: "Meter") -> Iterator[_Drawn]:
    """Within the context, a task's progress is drawn in a notebook; behind it its place in the output is empty."""
    shown = _Drawn(description, meter, _output())
    shown.draw()
    try:
        with watched(shown.draw, _TICK):
            yield shown
    finally:
        shown.clear()
