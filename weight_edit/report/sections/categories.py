"""The directions of categories beside one another: their cosines, and how the studies' edits compare."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weight_edit.report.charts import dot, dots
from weight_edit.report.figure import Figure, Section, Table
from weight_edit.report.numbers import decimal, share
from weight_edit.report.run_record import RunRecord
from weight_edit.report.theme import BASE, CONTROL, EDITED
from weight_edit.report.values import cells, number, shortened, text, told_apart

_MOST = 30
_MOST_EDITS = 40


def categories(record: RunRecord) -> Section | None:
    """The cosine matrices of a run's studies."""
    parts: list[Figure] = []
    for count, study in enumerate(record.studies, 1):
        parts += _cosines(count, record.table(study, "cosines"))
    return Section(name="directions", title="Directions beside one another", parts=tuple(parts)) if parts else None


def comparisons(record: RunRecord) -> Section | None:
    """The edits that were compared under hooks."""
    parts: list[Figure] = []
    for count, study in enumerate(record.studies, 1):
        parts += _compared(count, record.table(study, "compare"))
    return Section(name="edits", title="Edits tried under hooks", parts=tuple(parts)) if parts else None


def _cosines(count: int, found: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    names = [str(row.get("category")) for row in found][:_MOST]
    if len(names) < 2 or len(set(names)) < len(names):
        return
    shown = told_apart(names, lambda name: shortened(text(name) or "?", 22))
    data: list[dict[str, Any]] = [
        {
            "row": shown[str(row.get("category"))],
            "column": shown[name],
            "value": value,
            "said": f"{value:.2f}".lstrip("0"),
        }
        for row in found[:_MOST]
        for name in names
        if (value := number(row.get(name))) is not None and abs(value) <= 1.001
    ]
    if not data:
        return
    order = list(shown.values())
    least = min(each["value"] for each in data)
    # One hue from light to dark where no cosine is negative; two hues that meet in white where some are.
    scale = (
        {"domain": [0, 1], "range": ["#f2f6fa", "#0067a5"]}
        if least >= 0
        else {
            "domain": [-1, 0, 1],
            "range": ["#c04a00", "#f7f7f7", "#0067a5"],
        }
    )
    axis = {"title": None, "labelLimit": 130, "grid": False}
    x = {"field": "column", "type": "nominal", "sort": order, "axis": {**axis, "labelAngle": -50, "orient": "bottom"}}
    y = {"field": "row", "type": "nominal", "sort": order, "axis": axis}
    yield Figure(
        name=f"cosines-{count}",
        title="Cosines between the directions of categories",
        reading="1 is the same direction, 0 a right angle; the darker a cell, the nearer two directions.",
        alt="A square of cells, one for each pair of categories, coloured and labelled by the cosine.",
        spec={
            "data": {"values": data},
            "height": max(180, 32 * len(order)),
            "usermeta": {"widest": 240 + 48 * len(order)},
            "encoding": {"x": x, "y": y},
            "layer": [
                {
                    "mark": {"type": "rect"},
                    "encoding": {
                        "color": {"field": "value", "type": "quantitative", "scale": scale, "legend": None},
                        "tooltip": [{"field": "row"}, {"field": "column"}, {"field": "value", "format": ".3f"}],
                    },
                },
                {
                    "mark": {"type": "text", "fontSize": 10},
                    "encoding": {
                        "text": {"field": "said"},
                        "color": {
                            "condition": {"test": "datum.value > 0.78 || datum.value < -0.7", "value": "#ffffff"},
                            "value": "#1c1f23",
                        },
                    },
                },
            ],
        },
        table=Table(
            ("", *order),
            tuple(
                (
                    shown[str(row.get("category"))],
                    *("?" if (value := number(row.get(name))) is None else f"{value:.3f}" for name in names),
                )
                for row in found[:_MOST]
            ),
        ),
    )


def _compared(count: int, found: Sequence[Mapping[str, Any]]) -> Iterator[Figure]:
    rows = found[:_MOST_EDITS]
    if len(rows) < 2:
        return
    first, second = "refused requests", "over-refused, harmless ones"
    looks = {first: (EDITED, "diamond"), second: (BASE, "circle")}
    random = {f"{name} ": (CONTROL, look[1]) for name, look in looks.items()}
    data, table = [], []
    for row in rows:
        directions, edit = text(row.get("directions")) or "?", text(row.get("edit")) or "?"
        label = "the model as it is" if edit == "none" else f"{edit}, {directions}"
        why = text(row.get("why_not"))
        if why is None:
            data += [dot(label, first, cells(row, "refusal")), dot(label, second, cells(row, "over_refusal"))]
        table.append(
            (
                label,
                share(cells(row, "refusal")),
                share(cells(row, "over_refusal")),
                decimal(cells(row, "kl")),
                why or "",
            )
        )
    if any(data):
        yield Figure(
            name=f"compare-{count}",
            title="Refusal under each edit that was compared",
            reading="Each line is an edit under hooks; random directions show what any edit of that size does.",
            alt="Dots with intervals from 0 to 100 %, for each edit the rates of two kinds of requests.",
            spec=dots(data, {**looks, **random}),
            table=Table(("edit, directions", first, second, "KL, nats", "remark"), tuple(table)),
        )
