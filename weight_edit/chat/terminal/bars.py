"""Bars of a fixed width whose length says how far the stream goes along a direction."""

from weight_edit.chat.meter import Scale

_EIGHTHS = " ▏▎▍▌▋▊▉"
_CELLS = 5
WIDTH = _CELLS + 1
"""Cells of a bar, the mark of what is beyond its ends among them."""

_SLACK = 0.1
"""The share beyond an end from which on it is marked."""


class Bars:
    """Bars for components: empty at the baseline's mean, full at the target's.

    What is beyond an end has a mark behind the bar: + above, - below. Where no means are known, a bar is full at the
    largest component that was met, whatever its sign.

    Args:
        scale: the means.
        ascii_only: draw with # alone.
    """

    def __init__(self, scale: Scale | None, *, ascii_only: bool = False) -> None:
        self._scale, self._ascii = scale, ascii_only
        self._largest = 0.0

    def note(self, component: float) -> None:
        """Take a component into account where bars are compared with the largest one."""
        self._largest = max(self._largest, abs(component))

    def bar(self, component: float) -> str:
        """The bar of a component, `WIDTH` cells wide."""
        if self._scale is not None:
            share = self._scale.share(component)
        else:
            share = abs(component) / self._largest if self._largest else 0.0
        mark = "+" if share > 1 + _SLACK else "-" if share < -_SLACK else " "
        inside = min(max(share, 0.0), 1.0)
        if self._ascii:
            return f"{'#' * round(inside * _CELLS):{_CELLS}}{mark}"
        eighths = round(inside * _CELLS * 8)
        drawn = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        return f"{drawn:{_CELLS}}{mark}"
