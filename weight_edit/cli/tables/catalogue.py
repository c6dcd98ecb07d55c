"""Terminal output of proofs: the rounds of one model, and the table of all families."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import safe

if TYPE_CHECKING:
    from weight_edit.inspection.catalogue.summary import Catalogue
    from weight_edit.inspection.prove import ProofRounds

WIDE = 120
_COLOURS = {"proven": "green", "refused": "yellow", "failed": "bold red"}


def proving(found: "ProofRounds", console: Console) -> None:
    """Print the rounds of a proof, with the verdict."""
    title = f"{safe(found.name)}: {safe(found.architecture)}, a narrow random copy of {found.n_layers} blocks"
    table = Table(title=title, title_justify="left")
    for column in ("directions", "seed", "inputs", "values", "leak before", "leak", "hooks - weights"):
        table.add_column(column, justify="left" if column == "inputs" else "right")
    for measured in found.rounds:
        numbers = (f"{measured.leak_before:.2f}", f"{measured.leak:.1e}", f"{measured.logit_difference:.1e}")
        inputs = " and ".join(measured.inputs)
        table.add_row(str(measured.directions), str(measured.seed), inputs, str(measured.points), *numbers)
    console.print(table)
    for sentence in found.rounds[0].unknown:
        console.print(f"[yellow]not followed:[/] {safe(sentence)}")
    if found.passed:
        console.print("[bold green]Proven[/], each time on what was saved, baked and loaded back.")
    else:
        console.print("[bold red]Not proven[/]: something is left of the directions, or hooks and weights differ.")


def catalogue(found: "Catalogue", console: Console) -> None:
    """Print all families, then the counts."""
    # On a narrow terminal the class would leave no room for the rest.
    wide = console.width >= WIDE
    table = Table(title="Families", title_justify="left", box=SIMPLE)
    for column in ("model type", *(["class"] if wide else []), "status", "leak", "hooks", "structure, or the reason"):
        table.add_column(column, justify="right" if column in ("leak", "hooks") else "left")
    for trial in found.trials:
        numbers = [f"{x:.0e}" if x is not None else "" for x in (trial.leak, trial.logit_difference)]
        status = f"[{_COLOURS[trial.status]}]{trial.status}[/]"
        said = trial.why or "; ".join([*trial.kinds, *(f"not followed: {part}" for part in trial.unknown)])
        name = [safe(trial.label), *([safe(trial.architecture)] if wide else [])]
        table.add_row(*name, status, *numbers, safe(said))
    console.print(table)
    for title, counts in (("Kinds of structure among the proven", found.kinds()), ("Refused", found.reasons())):
        if counts:
            small = Table(title=title, title_justify="left", box=SIMPLE)
            small.add_column("what")
            small.add_column("model types", justify="right")
            for what, count in counts.items():
                small.add_row(safe(what), str(count))
            console.print(small)
    counts = found.counts()
    variants = sum(trial.variant is not None for trial in found.trials)
    partly = f" ({found.partly()} of them but for a part that could not be followed)" if found.partly() else ""
    console.print(
        f"{sum(counts.values())} model types: {counts['proven']} proven{partly}, {counts['refused']} refused by name, "
        f"{counts['failed']} failed; variants of them: {variants}. transformers {found.versions['transformers']}.",
        highlight=False,
    )
    for trial in found.having("failed"):
        console.print(f"[bold red]failed:[/] {safe(trial.label)}: {safe(trial.reason)}")
