"""A table of figures, some with their intervals, before it is text or HTML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A number, and where it is known the 95% interval around it.

    Attributes:
        value: the number.
        low, high: the interval's ends; None where there is none.
        signed: it is a difference, and its sign is written.
    """

    value: float
    low: float | None = None
    high: float | None = None
    signed: bool = False

    def __str__(self) -> str:
        """Value and interval: "0.981 [0.953, 0.993]"."""
        if self.low is None or self.high is None:
            return self._written(self.value)
        return f"{self._written(self.value)} [{self._written(self.low)}, {self._written(self.high)}]"

    def _written(self, value: float) -> str:
        sign = "+" if self.signed else ""
        # Three digits, and two of what they would make nothing of.
        return f"{value:{sign}.1e}" if 0 < abs(value) < 0.0005 else f"{value:{sign}.3f}"


Cell = Estimate | str | int | None
"""What stands in a cell; None is nothing."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under named columns.

    Attributes:
        title: what it holds.
        columns: their names.
        rows: a cell for each column.
        scale: the ends of the axis on which the figures of a row are drawn beside it; None draws none. Differences are
            not drawn.
        note: a sentence below it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    scale: tuple[float, float] | None = None
    note: str = ""


def estimate_of(entry: object, *, signed: bool = False) -> Estimate | None:
    """The figure of a document's entry: a number, or a mapping with "value" or "mean", and "low" and "high"."""
    if isinstance(entry, bool):
        return None
    if isinstance(entry, int | float):
        value = _float(entry)
        return None if value is None else Estimate(value, signed=signed)
    if not isinstance(entry, Mapping):
        return None
    value = _number(entry, "value")
    value = _number(entry, "mean") if value is None else value
    return None if value is None else Estimate(value, _number(entry, "low"), _number(entry, "high"), signed)


def _number(entry: Mapping[str, Any], key: str) -> float | None:
    found = entry.get(key)
    return _float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _float(value: float) -> float | None:
    """The number; None for an integer that none can hold."""
    try:
        return float(value)
    except OverflowError:
        return None
