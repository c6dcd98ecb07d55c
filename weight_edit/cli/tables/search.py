"""Terminal output of a search: the front as a table, how far it can be trusted, and what it took."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import safe, suggest
from weight_edit.utils.progress import duration

if TYPE_CHECKING:
    from pathlib import Path

    from weight_edit.search.result import SearchResult
    from weight_edit.search.summary import PointSummary, SearchSummary

_WIDE = 110
"""Characters from which on the names of recipes fit beside the figures."""


def search_result(result: "SearchResult", console: Console, *, report: "Path | None" = None) -> None:
    """Print a finished search, its page, and what to do next."""
    from weight_edit.search.summary import search_summary

    found = search_summary(result)
    search_front(found, console)
    chosen = next(point for point in found["front"] if point["digest"] == found["picked"])
    if report is not None:
        console.print(f"\nTo look at, with its pictures: {safe(report)}", highlight=False)
    console.print("\nEvery point is a recipe; this one is baked, verified and measured by, for example:")
    suggest(
        console,
        *("run", result.path / (chosen["recipe"] or ""), "--out", "edited"),
        *("--set", "evaluate.refused=PROMPTS", "--set", "evaluate.answered=PROMPTS"),
        lead="  ",
    )
    console.print(
        "Measure it on prompts that the search has not seen: it picked the best of many on those that it has."
    )


def search_front(found: "SearchSummary", console: Console) -> None:
    """Print the front of a search, why a point was picked, how the cheap score ranks, and seconds by step."""
    points = found["front"]
    over = any(point["over_refusal"] is not None for point in points)
    exact = any(point["exact"].get("ordinary") is not None for point in points)
    lengths = sorted({length for point in points for length in point["refusal"]}, key=int)
    # Without rules between columns it fits into 80 characters; what does not is broken, never cut off.
    table = Table(
        title="Front: judged refusal against damage, on validation prompts",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    wide = console.width >= _WIDE
    table.add_column("", justify="right")
    table.add_column(f"refused at\n{lengths[-1]} tokens", justify="right", no_wrap=True)
    for length in lengths[:-1]:
        table.add_column(f"at\n{length}", justify="right", no_wrap=True)
    for shown, name in ((True, "KL,\nnats"), (over, "over-\nrefused"), (exact, "exact")):
        if shown:
            table.add_column(name, justify="right")
    table.add_column("from", overflow="fold")
    if wide:
        table.add_column("recipe", overflow="fold")

    def row(mark: str, point: "PointSummary") -> None:
        cells = [_rate(point["refusal"].get(lengths[-1]), around=True)]
        cells += [_rate(point["refusal"].get(length)) for length in lengths[:-1]]
        cells.append(f"{point['damage']:.2g}")
        cells += [_rate(point["over_refusal"])] if over else []
        cells += [_rate(point["exact"].get("ordinary"))] if exact else []
        table.add_row(mark, *cells, safe(point["origin"]), *([safe(point["recipe"] or "")] if wide else []))

    for number, point in enumerate(points, 1):
        row(f"{'> ' if point['digest'] == found['picked'] else ''}{number}", point)
    if found["plain"]["digest"] not in [point["digest"] for point in points]:
        row("plain", found["plain"])
    console.print(table)
    if not wide:
        console.print("Recipes, in the folder of the search:")
        for number, point in enumerate(points, 1):
            console.print(f"{number:>6} {safe(point['recipe'] or '')}", highlight=False)
        console.print()
    console.print(f"Picked (>): {safe(found['reason'])}.", highlight=False)
    console.print(
        f"Of {found['candidates']} candidates {found['judged']} were judged: {safe(found['tau']['sentence'])}.",
        highlight=False,
    )
    sketch = found["sketch_tau"]
    if sketch.get("low") is not None:
        around = f"\\[{sketch['low']:.2f}, {sketch['high']:.2f}]"
        console.print(f"Sketches, which decide what is scored: tau {sketch['value']:.2f} {around}.", highlight=False)
    if rungs := found["costs"].get("rungs"):
        console.print(f"Rungs of the race: {_rungs(rungs)}.", highlight=False)
    if took := _by_step(found["seconds"]):
        console.print(f"Time: {took}.", highlight=False)
    for warning in found["warnings"]:
        console.print(f"[yellow]note:[/] {safe(warning)}", highlight=False)


def _rate(rate: "Mapping[str, float] | None", *, around: bool = False) -> str:
    """A rate, with its interval or alone."""
    if rate is None:
        return ""
    interval = f" \\[{rate['low']:.2f}, {rate['high']:.2f}]" if around else ""
    return f"{rate['value']:.2f}{interval}"


def _rungs(rungs: Sequence[Mapping[str, int]]) -> str:
    """How many candidates came to which number of prompts."""
    first, *others = (f"{rung['candidates']} on {rung['asked']}" for rung in rungs)
    return ", ".join([f"{first} prompts of each kind", *others]) + f"; {rungs[-1]['on']} to the end"


def _by_step(seconds: Mapping[str, float]) -> str:
    """Seconds by kind of step, the generations of a sampler together."""
    spent: dict[str, float] = {}
    for step, took in seconds.items():
        name = "".join(itertools.takewhile(lambda each: not each.isdigit(), step)).strip()
        spent[name] = spent.get(name, 0.0) + took
    return ", ".join(f"{safe(name)} {duration(took)}" for name, took in spent.items() if took >= 0.05)
