"""The sweep of an edit's strength or number of directions: gain against cost."""

from typing import Any

from pydantic import Field

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.recipe.recipe import CONTROL, MAIN, EditEntry, Positive
from weight_edit.studies.curves import curve_distance, draw_curves
from weight_edit.studies.lab import Lab
from weight_edit.studies.registry import study
from weight_edit.studies.rows import corrected
from weight_edit.studies.tables import write_table
from weight_edit.utils.settings import Section


class SweepOptions(Section):
    """Settings of a sweep.

    Attributes:
        edit: what is made of the directions; its strength is swept over.
        strengths: which.
        keep: numbers of leading directions that are swept over instead, or besides.
        directions: names of searches of the recipe; the recipe's own `find` when empty.
        control: sweep random directions of the same number and length too.
        x, y: the figures that are drawn against one another.
    """

    edit: EditEntry = EditEntry()
    strengths: list[float] = Field(min_length=1, default_factory=lambda: [1.0])
    keep: list[Positive] = Field(default_factory=list)
    directions: list[str] = Field(default_factory=list)
    control: bool = True
    x: str = "over_refusal"
    y: str = "refusal"


@study("sweep")
def sweep(lab: Lab, options: SweepOptions) -> dict[str, Any]:
    """Refusal, over-refusal and cost at each strength and number of directions.

    Writes `sweep.csv` and `.json`, a row for each point with every figure and its interval, the unedited model first,
    and `trade-off.png`. Refusal rates have McNemar's p value against the unedited model on the same prompts, and that
    by Holm's rule over all points.

    Returns:
        rows: the table.
        distances: of each curve from the first, see `curve_distance`.
    """
    names = options.directions or [MAIN]
    named = {name: lab.directions(name) for name in names}
    if options.control:
        named[CONTROL] = lab.control(names[0])
    rows: list[dict[str, Any]] = [{"directions": "none", "strength": 0.0, "count": 0, **lab.base}]
    for name, known in named.items():
        for count in options.keep or [len(known.rows)]:
            for strength in options.strengths:
                step = lab.step(options.edit.model_copy(update={"strength": strength}), first(known, count))
                rows.append({"directions": name, "strength": strength, "count": count, **lab.measure([step])})
                lab.log(f"{name}, strength {strength:g}, {count} directions: {_said(rows[-1])}")
    rows = corrected(rows)
    write_table(lab.folder, "sweep", rows)
    # By strength, so that a curve passes the unedited model where the strengths change their sign.
    ordered = sorted(rows, key=lambda row: (row["strength"], row["count"]))
    points = {name: [row for row in ordered if row["directions"] in (name, "none")] for name in named}
    draw_curves(lab.folder, "trade-off", points, options.x, options.y)
    reference = next(iter(named))
    distances = {
        name: curve_distance(points[reference], some, options.x, options.y)
        for name, some in points.items()
        if name != reference
    }
    return {"rows": rows, "distances": distances}


def first(known: DirectionRows, count: int) -> DirectionRows:
    """The leading directions, with their metadata and tensors."""
    return DirectionRows(known.rows[: min(count, len(known.rows))], known.metadata, known.tensors)


def _said(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {row[name]:.3f}" for name in ("refusal", "over_refusal", "kl") if name in row)
