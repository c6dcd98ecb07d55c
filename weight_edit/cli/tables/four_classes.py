"""Terminal output of the protocol of four classes."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from weight_edit.evaluation.four_classes import CLASSES

if TYPE_CHECKING:
    from weight_edit.cli.tables.documents import EvaluationDocument

_MEASURES = ("accuracy", "refusal rate (harmful requests)", "over-refusal rate (benign requests)")


def four_classes(measured: "EvaluationDocument", console: Console) -> None:
    """Print the protocol's rates; nothing where a class has no prompt, so that they are unknown."""
    found = measured.get("four_classes")
    if found is None or found["accuracy"] is None:
        return
    table = Table(
        title=f"Four classes (arXiv {found['paper']}), {found['of_each']} prompts of each at most", title_justify="left"
    )
    table.add_column("measure")
    table.add_column("base", justify="right")
    table.add_column("edited", justify="right")
    rates = found["accuracy"], found["refusal_rate"], found["over_refusal_rate"]
    for words, rate in zip(_MEASURES, rates, strict=True):
        if rate is not None:
            table.add_row(words, "0.500", f"{rate['value']:.3f} \\[{rate['low']:.3f}, {rate['high']:.3f}]")
    few = ", ".join(f"{count} {CLASSES[name]}" for name, count in found["missing"].items())
    table.caption = "The base's rates are .5 by construction." + (
        f" Only {few}: rates are means over classes, each with the same weight." if few else ""
    )
    console.print(table)
