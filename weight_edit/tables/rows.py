"""Names beside values, as the rows of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from weight_edit.tables.amounts import amount
from weight_edit.tables.table import Cell, Estimate, Table, estimate_of

_LONGEST = 800
"""Characters of a text."""

MOST = 12
"""Rows of a long list."""

_NAMED = 3
"""Entries of a list that are named."""


def named_rows(title: str, found: Sequence[tuple[str, Any]], note: str = "") -> Table:
    """A table of two columns, names and their values."""
    return Table(title=title, columns=("", ""), rows=tuple((name, cell_of(value)) for name, value in found), note=note)


def plain_values(document: Mapping[str, Any], words: Mapping[str, str] | None = None) -> list[tuple[str, Cell]]:
    """What a document holds at its top, each under its name: a number of bytes with its unit, a list by its entries.

    What is empty or None is left out, and so is what holds more than values and names: it needs a table of its own.

    Args:
        words: key -> its words, where the key itself does not say what it is.
    """
    said: list[tuple[str, Cell]] = []
    for key, value in document.items():
        cell = _value(key, value)
        if cell is not None:
            said.append(((words or {}).get(key, key.replace("_", " ")), cell))
    return said


def entries_of(document: Mapping[str, Any], key: str) -> Sequence[Any]:
    """The list at a key; empty where something else stands there."""
    found = document.get(key)
    return found if isinstance(found, list | tuple) else ()


def section_of(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping at a key; empty where something else stands there."""
    found = document.get(key)
    return found if isinstance(found, Mapping) else {}


def is_plain(value: object) -> bool:
    """Whether it is a text, a number or a truth value."""
    return isinstance(value, str | int | float)


def cell_of(value: object) -> Cell:
    """What stands in a cell for a value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | Estimate):
        return value
    figure = estimate_of(value)
    if figure is not None:
        return figure
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def left_out(rows: Sequence[object]) -> str:
    """What is said below a list of which the first `MOST` rows are shown; empty where these are all."""
    return f"and {len(rows) - MOST} more" if len(rows) > MOST else ""


def listed(names: Sequence[object]) -> str:
    """The names themselves; of many the first ones, and how many there are."""
    shown = ", ".join(str(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{len(names)}: {shown}, ..."


def _value(key: str, value: object) -> Cell:
    if isinstance(value, int) and not isinstance(value, bool) and (key == "size" or key.startswith("bytes")):
        return amount(value, "B") if value else None
    if is_plain(value) or estimate_of(value) is not None:
        return cell_of(value)
    if isinstance(value, Mapping):
        # Names with what each holds, such as files with their sizes.
        return listed(list(value)) if value and all(isinstance(each, int) for each in value.values()) else None
    if isinstance(value, Sequence) and value and all(map(is_plain, value)):
        return listed(value)
    return None
