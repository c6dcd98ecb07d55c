"""The charts that several sections draw: Vega-Lite specifications of dots with intervals, and of curves.

Data have fields of our own names, and foreign texts are values alone: none is ever part of an expression, of a field's
name or of an address.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from weight_edit.report.theme import BASE, CONTROL, DASHES, EDITED, INK, SERIES, SHAPES, SOFT
from weight_edit.report.values import Estimate

BEFORE, AFTER = "before", "after"
MODELS = {BEFORE: (BASE, "circle"), AFTER: (EDITED, "diamond")}
"""The two models of a run -> their colour and shape, the same in every picture."""

PERCENT = {"format": ".0%", "domain": [0, 1]}
_LINE = 26


def wrapped(label: str, width: int = _LINE) -> str:
    """A label with its line breaks marked, so that an axis shows it on several lines."""
    lines = [""]
    for word in label.replace("|", "/").split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > 3:
        lines = [*lines[:2], f"{lines[2][: width - 3]}..."]
    return "|".join(line if len(line) <= width + 6 else f"{line[: width + 3]}..." for line in lines)


def dot(row: str, series: str, found: Estimate | None) -> dict[str, Any]:
    """A row of the data of `dots`."""
    if found is None:
        return {}
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return {"row": wrapped(row), "series": series, "value": found.value, "low": low, "high": high}


def dots(
    data: Sequence[Mapping[str, Any]],
    series: Mapping[str, tuple[str, str]] = MODELS,
    *,
    title: str = "",
    percent: bool = True,
    domain: Sequence[float] | None = None,
    zero: bool = False,
) -> dict[str, Any]:
    """Estimates with their intervals, a line for each row and a mark for each series.

    Args:
        data: of `dot`; empty ones are left out.
        series: by name, colour and shape, in the order in which they lie under one another.
        title: of the axis.
        percent: the figures are shares.
        domain: ends of the axis.
        zero: mark where nothing has changed.
    """
    kept = [row for row in data if row]
    names = [name for name in series if any(row["series"] == name for row in kept)]
    form = ".0%" if percent else "~g"
    ends = list(domain) if domain else [0, 1] if percent else None
    scale: dict[str, Any] = {"domain": ends, "nice": False} if ends else {"zero": zero, "nice": True}
    x: dict[str, Any] = {"field": "value", "type": "quantitative", "scale": scale}
    x["axis"] = {"title": title or None, "format": form, "tickCount": 5, "grid": True}
    colour = {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": names, "range": [series[name][0] for name in names]},
        "legend": {"title": None} if len(names) > 1 else None,
    }
    shape = {**colour, "scale": {"domain": names, "range": [series[name][1] for name in names]}}
    tooltip = [
        {"field": "row", "title": " "},
        {"field": "series", "title": "model"},
        {"field": "value", "format": ".1%" if percent else ".4~g", "title": "figure"},
        {"field": "low", "format": ".1%" if percent else ".4~g", "title": "from"},
        {"field": "high", "format": ".1%" if percent else ".4~g", "title": "to"},
    ]
    layers: list[dict[str, Any]] = [
        {"mark": {"type": "rule", "strokeWidth": 2.5, "opacity": 0.65, "strokeCap": "round"}}
        | {"encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}}},
        {"mark": {"type": "point", "filled": True, "size": 85, "opacity": 1}}
        | {"encoding": {"x": x, "shape": shape, "tooltip": tooltip}},
    ]
    if zero:
        layers.insert(
            0, {"data": {"values": [{"at": 0}]}, "mark": {"type": "rule", "color": SOFT, "strokeDash": [3, 3]}}
        )
        layers[0]["encoding"] = {"x": {"field": "at", "type": "quantitative"}}
    y: dict[str, Any] = {"field": "row", "type": "nominal", "sort": None, "title": None}
    y["axis"] = {"labelExpr": "split(datum.label, '|')", "labelLimit": 240, "labelLineHeight": 14, "labelColor": INK}
    y["scale"] = {"paddingInner": 0.45, "paddingOuter": 0.25}
    shared: dict[str, Any] = {"color": colour}
    for layer in layers[-2:]:
        layer["encoding"] |= {"y": y, **shared}
        if len(names) > 1:
            layer["encoding"]["yOffset"] = {"field": "series", "sort": names, "scale": {"paddingOuter": 0.1}}
    lines = len({row["row"] for row in kept})
    return {
        "data": {"values": kept},
        "height": max(1, lines) * (48 if len(names) > 1 else 34),
        "layer": layers,
    }


def quantitative(field: str, title: str, *, percent: bool, domain: Sequence[float] | None = None) -> dict[str, Any]:
    """An axis of numbers."""
    scale: dict[str, Any] = {"domain": list(domain), "nice": False} if domain else {"nice": True, "zero": False}
    axis = {"title": title, "format": ".0%" if percent else "~g", "tickCount": 5}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def look(names: Sequence[str], control: str | None = None) -> dict[str, tuple[str, str, list[int]]]:
    """Colour, shape and dash of each series; a control is drawn apart."""
    others = [name for name in names if name != control]
    found = {
        name: (SERIES[i % 4], SHAPES[i % len(SHAPES)], list(DASHES[i // 4 % len(DASHES)]))
        for i, name in enumerate(others)
    }
    return found if control is None else {**found, control: (CONTROL, "cross", [4, 4])}
