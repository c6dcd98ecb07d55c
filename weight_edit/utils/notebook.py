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
    library: Any = sys.modules.get("IPython")
    shell = None if library is None else library.get_ipython()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


class _Drawn:
    """A bar in a notebook, one output that is drawn anew."""

    def __init__(self, description: str, meter: "Meter") -> None:
        from IPython.display import HTML, display

        self._html, self._description, self._meter = HTML, description, meter
        self._handle = display(HTML(self._content), display_id=True)

    def advance(self, n: float = 1) -> None:
        """Advance by n units."""
        self._meter.advance(n)

    def say(self, line: str) -> None:
        """Print a line."""
        print(plain(line), file=sys.stderr)

    def draw(self) -> None:
        """Draw it as it is now."""
        self._handle.update(self._html(self._content))

    def clear(self) -> None:
        """Leave nothing of it."""
        self._handle.update(self._html(""))

    @property
    def _content(self) -> str:
        total, count = self._meter.total, self._meter.count
        bar = "" if not total else f'<progress value="{min(count, total):g}" max="{total:g}"></progress> '
        return f"<div>{escape(plain(self._description))} {bar}{escape(str(self._meter))}</div>"


@contextmanager
def notebook_bar(description: str, meter: "Meter") -> Iterator[_Drawn]:
    """Within the context, a task's progress is drawn in a notebook; nothing of it is left behind."""
    shown = _Drawn(description, meter)
    try:
        with watched(shown.draw, _TICK):
            yield shown
    finally:
        shown.clear()
