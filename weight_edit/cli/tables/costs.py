"""Terminal output of a plan of costs."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from weight_edit.tables import amounts
from weight_edit.tables.amounts import amount, count

if TYPE_CHECKING:
    from weight_edit.costs.amounts import Range
    from weight_edit.costs.plan import CostPlan


def costs(found: "CostPlan", console: Console) -> None:
    """Print a plan: the model, each step, and the memory at the peak."""
    size, memory = found.size, found.memory
    blocks = f"{size.layers} blocks of up to {amount(size.block_bytes, 'B')}"
    expert = "" if size.expert_bytes is None else f", an expert {amount(size.expert_bytes, 'B')}"
    console.print(
        f"{escape(found.model)}: {size.architecture}, {count(size.parameters)} parameters, {count(size.active)} of "
        f"them for a token; {blocks}{expert}",
        highlight=False,
    )
    stored = "by its headers" if size.stored else "by config.json"
    console.print(
        f"Checkpoint {amount(size.checkpoint_bytes, 'B')} {stored}; {size.dtype}. "
        f"Everything below is an estimate{', offloaded' if found.work.offload else ''}"
        f"{f', {found.work.processes} processes' if found.work.processes > 1 else ''}.",
        highlight=False,
    )
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("step", max_width=17)
    for name in ("passes", "FLOPs", "read", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in found.steps:
        table.add_row(
            step.name,
            between(step.passes),
            between(step.flops),
            between(step.bytes_read, "B"),
            _time(step.seconds),
        )
    table.add_section()
    table.add_row("all", "", between(found.flops), between(found.bytes_read, "B"), _time(found.seconds))
    console.print(table)
    parts = {name.replace("_", " "): value for name, value in asdict(memory).items() if value}
    said = ", ".join(f"{name} {amount(value, 'B')}" for name, value in parts.items())
    each = " of each process" if found.work.processes > 1 else ""
    apart = "" if found.device == "cpu" else f", {amount(memory.on_device, 'B')} of it on {found.device}"
    console.print(f"Peak memory{each} of the find: {amount(memory.total, 'B')}{apart} ({said})", highlight=False)
    rates = found.rates
    if rates is not None:
        where = "given" if rates.device is None else f"of a plain block on {rates.device}"
        console.print(
            f"Rates: {amount(rates.flops, 'FLOP/s')} ({where}), reading {amount(rates.disk, 'B/s')}", highlight=False
        )
    for note in found.notes:
        console.print(f"[yellow]note:[/] {escape(note)}", highlight=False)


def between(value: "Range", unit: str = "") -> str:
    """As `amounts.between`."""
    return amounts.between(value.low, value.high, unit)


def _time(seconds: "Range | None") -> str:
    # There is no room for a word in a narrow terminal.
    return "?" if seconds is None else amounts.time_between(seconds.low, seconds.high)
