"""Several edits side by side, each with what several searches found: one table."""

from typing import Annotated, Any

from pydantic import Field

from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.recipe import CONTROL, Step
from weight_edit.section import Section
from weight_edit.studies.lab import Lab
from weight_edit.studies.registry import study
from weight_edit.studies.writing import figure, write_table


class CompareOptions(Section):
    """Settings of a comparison.

    Attributes:
        directions: names of searches of the recipe; all of them when empty.
        edits: what is made of each; by name.
        control: compare random directions too.
    """

    directions: list[str] = Field(default_factory=list)
    edits: Annotated[dict[str, Step], Field(min_length=1)]
    control: bool = True


@study("compare")
def compare(lab: Lab, options: CompareOptions) -> dict[str, Any]:
    """Searches times edits, with every figure and its interval, and a random direction beside them.

    Writes `compare.csv` and `.json`, the unedited model first, and `compare.png`. An edit that needs what a search does
    not make (LEACE's eraser, say) has a row that says so.

    Returns:
        rows: the table.
    """
    names = options.directions or list(lab.found)
    known = {name: lab.directions(name) for name in names}
    if options.control:
        known[CONTROL] = lab.control(names[0])
    rows: list[dict[str, Any]] = [{"directions": "none", "edit": "none", **lab.base}]
    for name, directions in known.items():
        for label, edit in options.edits.items():
            row: dict[str, Any] = {"directions": name, "edit": label}
            try:
                row |= lab.measure([lab.step(edit, directions)])
            except (UsageError, UnsupportedError) as error:
                row["why_not"] = str(error)
            rows.append(row)
            lab.log(f"{name}, {label}: refusal {row.get('refusal')}, over-refusal {row.get('over_refusal')}")
    write_table(lab.folder, "compare", rows)
    _draw(lab, rows)
    return {"rows": rows}


def _draw(lab: Lab, rows: list[dict[str, Any]]) -> None:
    drawn = [row for row in rows if "refusal" in row and "kl" in row]
    if not drawn:
        return
    with figure(lab.folder, "compare") as axes:
        for label in dict.fromkeys(row["edit"] for row in drawn):
            some = [row for row in drawn if row["edit"] == label]
            axes.scatter([row["kl"] for row in some], [row["refusal"] for row in some], label=label, s=18)
            for row in some:
                axes.annotate(row["directions"], (row["kl"], row["refusal"]), fontsize=5)
        axes.set_xscale("symlog", linthresh=1e-3)
        axes.set_xlabel("KL divergence at the first answer token, nats")
        axes.set_ylabel("refused requests refused")
        axes.legend(fontsize=7)
