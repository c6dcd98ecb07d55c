"""Terminal output of the side effects on how a model writes, beside the base's."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import safe

if TYPE_CHECKING:
    from weight_edit.cli.tables.documents import Compared, EvaluationDocument


def style(base: "EvaluationDocument", edited: "EvaluationDocument", console: Console) -> None:
    """Print a row for each measure of each set that is not 0 of both models.

    Args:
        base, edited: `Evaluation.to_dict()`, with "differences" in the second.
    """
    from weight_edit.evaluation.style import MEANS, RATES

    table = Table(title="Side effects on style (differences pair by pair)", title_justify="left")
    corrected = False
    table.add_column("measure")
    for column in ("base", "edited", "difference"):
        table.add_column(column, justify="right")
    for name in _sets_of_both(base, edited):
        before, after = (each.get("sets", {})[name].get("style") or {} for each in (base, edited))
        apart = ((edited.get("differences") or {}).get(name) or {}).get("style") or {}
        shown = [
            (words, before[key], after[key], apart.get(key))
            for key, words in (MEANS | RATES).items()
            if key in before and key in after and (before[key]["value"] or after[key]["value"])
        ]
        if shown:
            table.add_section()
            table.add_row(f"[bold]{safe(name.replace('_', ' '))}[/]")
        for words, first, second, difference in shown:
            corrected = corrected or (difference is not None and _corrected(difference))
            table.add_row(words, _figure(first["value"]), _figure(second["value"]), _difference(difference))
    if corrected:
        table.caption = "What can be told goes by p values corrected for the number of measures; intervals are not."
    if table.row_count:
        console.print(table)


def _sets_of_both(base: "EvaluationDocument", edited: "EvaluationDocument") -> list[str]:
    """The sets that both were measured on."""
    return [name for name in edited.get("sets", {}) if name in base.get("sets", {})]


def _figure(value: float) -> str:
    return f"{value:.3g}"


def _corrected(apart: "Compared") -> bool:
    """Whether the interval excludes 0 and the corrected p value tells no difference."""
    return not apart["told"] and (apart["low"] > 0 or apart["high"] < 0)


def _difference(apart: "Compared | None") -> str:
    if apart is None:
        return ""
    from weight_edit.evaluation.comparisons import UNTOLD

    said = "" if apart["told"] else f"; {UNTOLD}"
    return safe(f"{apart['value']:+.3g} [{apart['low']:+.3g}, {apart['high']:+.3g}]{said}")
