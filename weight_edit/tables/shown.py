"""What makes a result show itself in a notebook, and `show`, which does so anywhere."""

import sys
from collections.abc import Mapping
from typing import Any

from weight_edit.errors import UsageError, plain
from weight_edit.tables.html import as_html
from weight_edit.tables.results import tables_of
from weight_edit.tables.table import Table
from weight_edit.utils.notebook import in_notebook


class Shown:
    """A result with a document: in a notebook it is HTML, tables with intervals, and elsewhere its short repr."""

    def to_dict(self) -> Mapping[str, Any]:
        """JSON values."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        """The HTML that a notebook shows."""
        return as_html(repr(self), _tables(self))


def show(result: object) -> None:
    """Show a result: HTML in a notebook, its tables on stdout elsewhere.

    Args:
        result: what a function of this package gave.

    Raises:
        UsageError: it is nothing that has tables.
    """
    if not isinstance(result, Shown):
        raise UsageError(f"there are no tables of a {type(result).__name__}; give what a verb's function gave")
    if in_notebook():
        from IPython.display import display

        display(result)
        return
    _print(plain(repr(result)), _tables(result))


def _tables(result: Shown) -> list[Table]:
    return tables_of(type(result).__name__, result.to_dict())


def _print(title: str, tables: list[Table]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    console = Console(file=sys.stdout, emoji=False)
    console.print(title, markup=False, highlight=False)
    for table in tables:
        headed = any(table.columns)
        drawn = Drawn(title=table.title or None, title_justify="left", box=SIMPLE_HEAD, show_header=headed)
        for name in table.columns:
            drawn.add_column(name, overflow="fold")
        for row in table.rows:
            drawn.add_row(*(Text("" if cell is None else plain(str(cell))) for cell in row))
        console.print(drawn)
        if table.note:
            console.print(plain(table.note), markup=False, highlight=False)
