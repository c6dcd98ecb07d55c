"""Terminal output of judged answers: rates by judge, agreement, and the confusion with human labels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from weight_edit.cli.tables.results import safe

if TYPE_CHECKING:
    from weight_edit.evaluation.agreement import Agreement
    from weight_edit.evaluation.intervals import Rate
    from weight_edit.evaluation.judging import JudgedAnswers
    from weight_edit.evaluation.verdicts import Verdict


def judged_answers(result: "JudgedAnswers", console: Console) -> None:
    """Print rates, agreements, and judges against labels."""
    for judge, compared in result.against_labels.items():
        title = f"{judge} (columns) against the labels (rows) of {compared.verdicts.total} answers"
        _confusion(title, compared.verdicts, console)
        console.print(f"Refusal: accuracy {compared.accuracy}, {_kappa(compared.refusal)}.", highlight=False)
        lean = compared.lean
        moved = lean.comparison.verdict
        console.print(
            f"Refusals beyond those of the labels: {lean}"
            + (f", {moved}." if not lean.comparison.told else f", p = {lean.p:.2g}."),
            highlight=False,
        )
        if compared.several:
            console.print(f"All kinds: {compared.verdicts}.", highlight=False)
        console.print()
    for of in result.sets or (None,):
        _rates(result, of, console)
    for (one, other), agreement in result.agreements.items():
        _confusion(f"{one} (rows) and {other} (columns)", agreement, console)
        console.print(f"All kinds: {agreement}.", highlight=False)
        apart = result.differences(one, other)
        word = "" if apart.comparison.told else f", {apart.comparison.verdict}"
        console.print(f"Refusals of {safe(other)} beyond those of {safe(one)}: {apart}{word}.\n", highlight=False)
    for note in result.notes:
        console.print(f"[yellow]note:[/] {safe(note)}")
    if result.out is not None:
        console.print(f"{result.out}: {len(result.answers)} lines with their verdicts", markup=False, highlight=False)


def _rates(result: "JudgedAnswers", of: str | None, console: Console) -> None:
    """Print the rate of each verdict that a judge gave."""
    rates: dict[str, Mapping[Verdict, Rate]] = {
        judge: result.rates(judge, of) for judge in result.judges if result.verdicts(judge, of)
    }
    if not rates:
        return
    first = next(iter(rates.values()))
    total = next(iter(first.values())).total
    title = f"{safe(result.source)}{'' if of is None else f', {safe(of)}'}: {total} answers (rates with 95% intervals)"
    table = Table(title=title, title_justify="left")
    table.add_column("verdict")
    for judge in rates:
        table.add_column(safe(judge), justify="right")
    for kind in first:
        if any(each[kind].count for each in rates.values()) or kind in ("refused", "answered"):
            table.add_row(kind.value, *(safe(f"{each[kind].count}  {each[kind]}") for each in rates.values()))
    console.print(table)


def _confusion(title: str, agreement: "Agreement", console: Console) -> None:
    # Above the table, which is narrow.
    console.print(title, markup=False, highlight=False)
    # Without rules between columns all eight kinds fit into 80 characters; what does not fit is broken, never cut off.
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("", overflow="fold")
    given = [kind for kind in agreement.kinds if any(row[kind] for row in agreement.confusion().values())]
    for kind in given:
        table.add_column(kind.replace("_", " "), justify="right", overflow="fold")
    for kind, row in agreement.confusion().items():
        if any(row.values()):
            table.add_row(kind.replace("_", " "), *(str(row[other]) for other in given))
    console.print(table)


def _kappa(agreement: "Agreement") -> str:
    if agreement.kappa is None:
        return f"kappa unknown: all are {agreement.kinds[0]}"
    return f"kappa {agreement.kappa:.3f} [{agreement.low:.3f}, {agreement.high:.3f}]"
