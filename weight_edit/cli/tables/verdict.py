"""Terminal output of a verdict: what a model was made with, why, and how strongly which writers were edited."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import SHOWN, safe

if TYPE_CHECKING:
    from weight_edit.difference.verdict_result import EditedWriter, Verdict

_COLOURS = {"certain": "green", "likely": "yellow", "undecided": "red"}


def verdict(found: "Verdict", console: Console, everything: bool = False) -> None:
    """Print a verdict.

    Args:
        everything: a line for each edited tensor instead of one for each role.
    """
    colour = _COLOURS[found.confidence]
    console.print(f"[bold {colour}]B was made with: {safe(found.said)}[/] ({found.confidence})", highlight=False)
    for sentence in found.evidence:
        console.print(f"  {safe(sentence)}", highlight=False)
    for note in found.notes:
        console.print(f"[yellow]note:[/] {safe(note)}", highlight=False)
    if found.edited and found.not_edited:
        named = ", ".join(map(safe, found.not_edited[:SHOWN]))
        more = f" and {len(found.not_edited) - SHOWN} more" if len(found.not_edited) > SHOWN else ""
        console.print(f"  As they were, of what writes to the stream: {named}{more}.", highlight=False)
    if found.writers:
        _writers(found.writers, console, everything)


def _writers(writers: "Sequence[EditedWriter]", console: Console, everything: bool) -> None:
    groups: dict[str, list[EditedWriter]] = {}
    for writer in writers:
        groups.setdefault(writer.name if everything else writer.role or "tensors", []).append(writer)
    table = Table(title="Edited tensors", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("at", overflow="fold")
    for column in ("n", "strength by layer", "explained", "left"):
        table.add_column(column, justify="right")
    for name, group in groups.items():
        group = sorted(group, key=lambda writer: -1 if writer.layer is None else writer.layer)
        strengths = [writer.strength for writer in group if writer.strength is not None]
        left = [writer.left for writer in group if writer.left is not None]
        table.add_row(
            safe(name),
            str(len(group)),
            _by_layer(strengths),
            f"{sum(writer.explained for writer in group) / len(group):.4f}",
            f"{sum(left) / len(left):.2%}" if left else "",
        )
    console.print(table)


def _by_layer(strengths: Sequence[float]) -> str:
    """One number where all are alike, else each."""
    if not strengths:
        return ""
    if max(strengths) - min(strengths) <= 0.06:
        return f"{sum(strengths) / len(strengths):.3g}"
    return " ".join(f"{strength:.2f}" for strength in strengths)
