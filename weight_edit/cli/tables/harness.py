"""Terminal output of benchmarks of lm-eval, beside the base's."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import safe

if TYPE_CHECKING:
    from weight_edit.cli.tables.documents import HarnessDocument, MetricDifferenceDocument, MetricDocument

_BETTER = {True: "↑", False: "↓", None: ""}


def benchmarks(found: "HarnessDocument", console: Console) -> None:
    """Print a table of the figures of all tasks, with 95% intervals, the base's and the differences where there are."""
    base = found.get("base")
    apart = found.get("differences") or {}
    table = Table(title=f"lm-eval {safe(found['lm_eval_version'])} (95% intervals)", title_justify="left")
    table.add_column("task")
    table.add_column("metric", overflow="fold")
    for head in ("n", *(("base", "edited", "difference", "p (Holm)") if base else ("value",))):
        table.add_column(head, justify="right")
    unpaired = False
    for task, figures in found["tasks"].items():
        before = {} if base is None else base["tasks"].get(task, {})
        for name, figure in figures.items():
            between = (apart.get(task) or {}).get(name)
            unpaired |= between is not None and not between["paired"]
            table.add_row(
                safe(task),
                f"{safe(name.removesuffix(',none'))} {_BETTER.get(figure['higher_is_better'], '')}".strip(),
                str(figure["count"]),
                *(_cells(before.get(name), figure, between) if base else (_interval(figure),)),
            )
    console.print(table)
    if unpaired:
        console.print("* from the two standard errors: not paired, so too wide an interval", highlight=False)


def _cells(
    before: "MetricDocument | None", figure: "MetricDocument", between: "MetricDifferenceDocument | None"
) -> tuple[str, ...]:
    earlier = "" if before is None else _interval(before)
    if between is None:
        return earlier, _interval(figure), "", ""
    mark = "" if between["paired"] else "*"
    return earlier, _interval(figure), _interval(between, "+") + mark, f"{between['p_holm']:.2g}"


def _interval(found: "MetricDocument | MetricDifferenceDocument", sign: str = "") -> str:
    value, low, high = found["value"], found["low"], found["high"]
    if low is None or high is None:
        return f"{value:{sign}.4g}"
    # Two lines, so that a table beside the base's fits a terminal.
    return safe(f"{value:{sign}.3f}\n[{low:{sign}.3f}, {high:{sign}.3f}]")
