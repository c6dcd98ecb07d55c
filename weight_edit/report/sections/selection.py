"""How the direction was chosen: scores by layer and position, and how the classes separate."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from weight_edit.report.charts import curves, dots, layers, look, quantitative
from weight_edit.report.figure import Figure, Notes, Section, Table
from weight_edit.report.numbers import counted, small
from weight_edit.report.run_record import RunRecord
from weight_edit.report.theme import BASE, INK
from weight_edit.report.values import at, entries, named, number, rows, text, texts, whole

_MOST = 600
_NUMBER = r"[-+]?(?:[0-9.]+(?:e[-+]?[0-9]+)?|inf|nan)"
_SCORES = {
    "bypass": ("Refusal left when a candidate is ablated", "Lower is better: less refusal is left.", "bypass score"),
    "induce": (
        "Refusal induced when a candidate is added",
        "Higher is better: adding it brings refusal.",
        "induce score",
    ),
    "kl": (
        "Divergence on ordinary prompts when a candidate is ablated",
        "Lower is better: less else changes.",
        "KL, nats",
    ),
}


def selection(record: RunRecord) -> Section | None:
    """The candidates of `find` and the one that was taken."""
    found = entries(record.summary.get("direction"))
    scores = rows(record.directions.get("scores"), _MOST)
    figures = [*_figures(record, scores)]
    notes = [*_said(record, found)]
    if not figures and not notes:
        return None
    parts: list[Any] = [Notes(tuple(notes))] if notes else []
    return Section(name="selection", title="How the direction was chosen", parts=(*parts, *figures, *_rejected(scores)))


def _said(record: RunRecord, found: dict[str, Any]) -> Iterator[str]:
    method, layer = text(found.get("method")), whole(found.get("layer"))
    if method is None:
        return
    kept, of = whole(found.get("kept_bounds")), whole(found.get("candidates"))
    counts = (
        ""
        if of is None
        else f", of {counted(of, 'candidate')}" + ("" if kept is None else f" of which {kept} kept the bounds")
    )
    place = (
        "" if layer is None else f" at the input of layer {layer}, position {_position(record, found.get('position'))}"
    )
    yield f"By {method}{place}{counts}."
    auc, length = number(at(found, "separation.auc")), number(at(found, "separation.relative_norm"))
    if auc is not None:
        said = f"Along it the two kinds of prompts are told apart with an AUC of {auc:.3f}"
        yield said + (
            "." if length is None else f"; the difference of their means is {length:.2f} of the stream's length."
        )
    control = number(at(found, "control.bypass"))
    mine = number(found.get("bypass"))
    if control is not None and mine is not None:
        yield f"Its bypass score is {mine:.2f}; that of a random direction of the same length, {control:.2f}."
    yield from (f"To note: {said}." for said in texts(found.get("warnings"), 10))


def _position(record: RunRecord, position: object) -> str:
    """A position in words, with the token that stands there."""
    places, labels = record.directions.get("positions"), record.directions.get("position_labels")
    if isinstance(places, list) and isinstance(labels, list) and position in places:
        index = places.index(position)
        if index < len(labels) and isinstance(labels[index], str):
            shown = text(labels[index].replace("\n", "\\n"), 24)
            return f"{named(position)} ({shown})" if shown else named(position)
    return named(position)


def _figures(record: RunRecord, scores: Sequence[dict[str, Any]]) -> Iterator[Figure]:
    taken = entries(record.summary.get("direction"))
    chosen = (whole(taken.get("layer")), taken.get("position"))
    for key, (title, reading, axis) in _SCORES.items():
        measured = [row for row in scores if number(row.get(key)) is not None and whole(row.get("layer")) is not None]
        places = list(dict.fromkeys(named(row.get("position")) for row in measured))[:8]
        if len(measured) < 2:
            continue
        names = {place: f"position {_position(record, _raw(measured, place))}" for place in places}
        data, table = [], []
        for place in places:
            mine = sorted(
                (row for row in measured if named(row.get("position")) == place), key=lambda row: row["layer"]
            )
            for row in mine:
                low, high = _ends(row, key)
                data.append(
                    {"series": names[place], "x": row["layer"], "y": number(row[key]), "low": low, "high": high}
                )
                ends = "" if low is None or high is None else f" [{small(low)}, {small(high)}]"
                why = text(row.get("rejected")) or ("chosen" if (row["layer"], row.get("position")) == chosen else "")
                table.append((names[place], str(row["layer"]), small(number(row[key])) + ends, why))
        best = [
            {"x": row["layer"], "y": number(row[key]), "label": "chosen"}
            for row in measured
            if (row["layer"], row.get("position")) == chosen
        ][:1]
        x = layers([row["x"] for row in data], "layer whose input is read")
        y = quantitative("y", axis, percent=False)
        ring = {
            "data": {"values": best},
            "mark": {"type": "point", "size": 260, "strokeWidth": 2, "color": INK, "shape": "circle", "filled": False},
            "encoding": {"x": x, "y": y},
        }
        few = len({row["x"] for row in data}) < 3
        if best and not few:
            reading = f"{reading} The ring is the candidate that was taken."
        yield Figure(
            name=f"selection-{key}",
            title=title,
            reading=reading,
            alt=f"The {axis} of candidates, by layer and position of the prompt's end.",
            spec=_listed(data, axis, chosen, names)
            if few
            else curves(data, look(list(names.values())), x, y, marks=[ring]),
            table=Table(("position", "layer", axis, "remark"), tuple(table)),
        )


def _listed(
    data: Sequence[dict[str, Any]], axis: str, chosen: tuple[int | None, object], names: dict[str, str]
) -> dict[str, Any]:
    """The few candidates that were measured, a line for each."""
    taken = names.get(named(chosen[1]))
    shown = [
        {
            "row": f"layer {row['x']}, {row['series']}{', chosen' if is_taken else ''}",
            "series": "candidate",
            "value": row["y"],
            "low": row["y"] if row["low"] is None else row["low"],
            "high": row["y"] if row["high"] is None else row["high"],
        }
        for row in data
        for is_taken in [row["x"] == chosen[0] and row["series"] == taken]
    ]
    return dots(shown, {"candidate": (BASE, "circle")}, title=axis, percent=False, width=40)


def _raw(measured: Sequence[dict[str, Any]], place: str) -> object:
    return next(row.get("position") for row in measured if named(row.get("position")) == place)


def _ends(row: dict[str, Any], key: str) -> tuple[float | None, float | None]:
    found = at(row, f"intervals.{key}")
    if not isinstance(found, list) or len(found) != 2:
        return None, None
    low, high = number(found[0]), number(found[1])
    return (None, None) if low is None or high is None else (low, high)


def _rejected(scores: Sequence[dict[str, Any]]) -> Iterator[Table]:
    reasons: dict[str, int] = {}
    for row in scores:
        said = text(row.get("rejected"))
        if said:
            kind = "; ".join(_bound_missed(each) for each in said.split("; "))
            reasons[kind] = reasons.get(kind, 0) + 1
    if reasons:
        listed = sorted(reasons.items(), key=lambda each: -each[1])[:12]
        yield Table(
            ("why a candidate was not taken", "candidates"),
            tuple((kind, str(count)) for kind, count in listed),
        )


def _bound_missed(reason: str) -> str:
    """A reason without the candidate's own figure: "induce score below 0" of "induce score -6.8 below 0"."""
    return re.sub(rf" {_NUMBER} (above|below) (?={_NUMBER})", r" \1 ", reason)
