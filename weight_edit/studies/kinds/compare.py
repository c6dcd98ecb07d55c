"""The comparison of edits and searches: one table of every combination."""

from itertools import cycle
from typing import Annotated, Any

from pydantic import Field

from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.recipe.recipe import CONTROL, EditEntry
from weight_edit.studies.lab import Lab
from weight_edit.studies.registry import study
from weight_edit.studies.rows import corrected
from weight_edit.studies.tables import colour, figure, write_table
from weight_edit.utils.settings import Section


class CompareOptions(Section):
    """Settings of a comparison.

    Attributes:
        directions: names of searches of the recipe; all of them when empty.
        edits: what is made of each; by name.
        control: compare random directions too.
    """

    directions: list[str] = Field(default_factory=list)
    edits: Annotated[dict[str, EditEntry], Field(min_length=1)]
    control: bool = True


@study("compare")
def compare(lab: Lab, options: CompareOptions) -> dict[str, Any]:
    """Every combination of search and edit, with figures and intervals, and random directions.

    Writes `compare.csv` and `.json`, the unedited model first, and `compare.png`. An edit that needs what a search does
    not make (LEACE's eraser, say) has a row that says so. Refusal rates have McNemar's p value against the unedited
    model on the same prompts, and that by Holm's rule over all rows.

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
    rows = corrected(rows)
    write_table(lab.folder, "compare", rows)
    _draw(lab, rows)
    return {"rows": rows}


def _draw(lab: Lab, rows: list[dict[str, Any]]) -> None:
    drawn = [row for row in rows if "refusal" in row and "kl" in row]
    if not drawn:
        return
    # Points lie close together where edits do alike: a mark and a colour can be told apart there, words on them cannot.
    edits = list(dict.fromkeys(row["edit"] for row in drawn))
    colours = {label: colour(number, len(edits)) for number, label in enumerate(edits)}
    marks = dict(zip(dict.fromkeys(row["directions"] for row in drawn), cycle("ovs^D*PX<>"), strict=False))
    with figure(lab.folder, "compare", size=(8.0, 4.0)) as axes:
        for row in drawn:
            look = {"color": colours[row["edit"]], "marker": marks[row["directions"]]}
            axes.scatter(row["kl"], row["refusal"], s=28, alpha=0.7, **look)
        for label in edits:
            axes.scatter([], [], color=colours[label], marker="o", label=f"edit: {label}")
        for name, mark in marks.items():
            if name != "none":
                axes.scatter([], [], color="grey", marker=mark, label=f"directions: {name}")
        axes.set_xscale("symlog", linthresh=1e-3)
        axes.set_ylim(-0.05, 1.05)
        axes.set_xlabel("KL divergence at the first answer token, nats")
        axes.set_ylabel("refused requests refused")
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
