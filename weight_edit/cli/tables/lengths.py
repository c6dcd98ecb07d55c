"""Terminal output of verdicts by the length of answers, beside the base's."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import safe

if TYPE_CHECKING:
    from weight_edit.cli.tables.documents import AtLengthDocument, Difference, EvaluationDocument, Rate

_COUNTED = ("refused", "answered", "undecided")


def by_length(base: "EvaluationDocument | None", edited: "EvaluationDocument", console: Console) -> None:
    """Print a table for each prompt set: refused, answered, undecided and other answers at each length.

    Args:
        base: shown beside it, with the paired difference and its p value; None without one.
        edited: `Evaluation.to_dict()`, with "differences" where there is a base.
    """
    for name, found in (edited.get("sets") or {}).items():
        lengths = found.get("lengths") or {}
        if not lengths:
            continue
        sets = {} if base is None else base.get("sets", {})
        before = sets[name].get("lengths") or {} if name in sets else {}
        apart = ((edited.get("differences") or {}).get(name) or {}).get("lengths") or {}
        console.print(_table(name, before, lengths, apart))


def _table(
    name: str,
    before: "Mapping[str, AtLengthDocument]",
    lengths: "Mapping[str, AtLengthDocument]",
    apart: "Mapping[str, Difference]",
) -> Table:
    table = Table(title=f"Verdicts by length in tokens: {safe(name)}", title_justify="left")
    columns = ("refused", "answered", "undecided", "other")
    for head in ("length", *columns, *(("difference",) if before else ())):
        table.add_column(head, justify="right", no_wrap=True)
    for length, found in lengths.items():
        if not before:
            table.add_row(safe(length), *_cells(found))
            continue
        # Below each other: beside each other they do not fit a terminal of 80 columns.
        table.add_section()
        if length in before:
            table.add_row(f"{safe(length)} base", *_cells(before[length]), "")
        between = apart.get(length)
        difference = f"{_interval(between, '+')}\np {between['p']:.2g}" if between else ""
        table.add_row("edited" if length in before else f"{safe(length)} edited", *_cells(found), difference)
    return table


def _cells(found: "AtLengthDocument") -> tuple[str, ...]:
    verdicts = found["verdicts"]
    other = sum(count for verdict, count in verdicts.items() if verdict not in _COUNTED)
    counts = (verdicts.get("answered", 0), verdicts.get("undecided", 0), other)
    return (_interval(found["refusal"]), *map(str, counts))


def _interval(rate: "Rate", sign: str = "") -> str:
    value, low, high = (f"{each:{sign}.3f}" for each in (rate["value"], rate["low"], rate["high"]))
    # Two lines, so that a table with differences fits a terminal.
    return safe(f"{value}\n[{low}, {high}]")
