"""Terminal output of the numbers of prompts that tell two rates apart."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from weight_edit.evaluation.power import SampleSize


def sample_sizes(sizes: "Mapping[str, SampleSize]", console: Console) -> None:
    """Print how many prompts are needed, paired and unpaired."""
    power = next(iter(sizes.values())).power
    table = Table(title=f"Prompts that tell two rates apart (two-sided, level .05, power {power:g})")
    table.title_justify = "left"
    table.caption = (
        "On the same prompts by McNemar's exact test: at the share of differing prompts that was observed, or from as "
        "few as can differ to independent models."
    )
    for column in ("rates", "first", "second", "the same prompts", "other prompts, each"):
        table.add_column(column, justify="left" if column == "rates" else "right")
    for name, size in sizes.items():
        table.add_row(name, f"{size.first:.3f}", f"{size.second:.3f}", _paired(size), _number(size.unpaired))
    console.print(table)


def _paired(size: "SampleSize") -> str:
    if size.paired is not None or size.paired_range is None:
        return _number(size.paired)
    least, most = size.paired_range
    return f"{least:,} to {most:,}"


def _number(count: int | None) -> str:
    return "no number, they are equal" if count is None else f"{count:,}"
