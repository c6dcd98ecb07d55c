"""The charts that several sections draw: Vega-Lite specifications of dots with intervals, and of curves.

Data have fields of our own names, and foreign texts are values alone: none is ever part of an expression, of a field's
name or of an address.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor, log10
from typing import Any

from weight_edit.report.interaction import with_choice
from weight_edit.report.theme import BASE, CONTROL, DASHES, EDITED, INK, PAPER, SERIES, SHAPES, SOFT
from weight_edit.report.values import Estimate, shortened, told_apart

BEFORE, AFTER = "before", "after"
MODELS = {BEFORE: (BASE, "circle"), AFTER: (EDITED, "diamond")}
"""The two models of a run -> their colour and shape, the same in every picture."""

_LINE = 30


def wrapped(label: str, width: int = _LINE) -> str:
    """A label with line breaks, where an axis or a curve's end has not the room for one line."""
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) > 3:
        lines = [lines[0], f"{lines[1]} ...", lines[-1]]
    return "\n".join(shortened(line, width + 6) for line in lines)


def dot(row: str, series: str, found: Estimate | None) -> dict[str, Any]:
    """A row of the data of `dots`."""
    if found is None:
        return {}
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    return {"row": row, "series": series, "value": found.value, "low": low, "high": high}


def dots(
    data: Sequence[Mapping[str, Any]],
    series: Mapping[str, tuple[str, str]] = MODELS,
    *,
    title: str = "",
    percent: bool = True,
    domain: Sequence[float] | None = None,
    zero: bool = False,
    beside: Mapping[str, str] | None = None,
    line: int | None = None,
    width: int = _LINE,
) -> dict[str, Any]:
    """Estimates with their intervals, a line for each row and a mark for each series.

    Args:
        data: of `dot`; empty ones are left out.
        series: by name, colour and shape, in the order in which they lie under one another.
        title: of the axis.
        percent: the figures are shares.
        domain: ends of the axis.
        zero: mark where nothing has changed.
        beside: by row, what stands at its right end, where `domain` or shares say where that is.
        line: height of a row, in pixels, where labels need more than the marks.
        width: characters from which on a row's label breaks; however it is shortened, each row keeps a line.
    """
    labels = told_apart((row["row"] for row in data if row), lambda name: wrapped(name, width))
    kept = [{**row, "name": row["row"], "row": labels[row["row"]]} for row in data if row]
    names = [name for name in series if any(row["series"] == name for row in kept)]
    # Without a form, an axis has the digits that its ticks need.
    form = ".0%" if percent else None
    ends = list(domain) if domain else [0, 1] if percent else None
    scale: dict[str, Any] = {"domain": ends, "nice": False} if ends else {"zero": zero, "nice": True}
    x: dict[str, Any] = {"field": "value", "type": "quantitative", "scale": scale}
    x["axis"] = {"title": title or None, "tickCount": 5, "grid": True, **({} if form is None else {"format": form})}
    colour = {
        "field": "series",
        "type": "nominal",
        "scale": {"domain": names, "range": [series[name][0] for name in names]},
        "legend": {"title": None, "symbolOpacity": 1} if len(names) > 1 else None,
    }
    shape = {**colour, "scale": {"domain": names, "range": [series[name][1] for name in names]}}
    tooltip = [
        {"field": "name", "title": " "},
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
    y["axis"] = {"labelExpr": "split(datum.label, '\\n')", "labelLimit": 240, "labelLineHeight": 14, "labelColor": INK}
    y["scale"] = {"paddingInner": 0.45, "paddingOuter": 0.25}
    shared: dict[str, Any] = {"color": colour}
    for layer in layers[-2:]:  # the bars and the marks
        layer["encoding"] |= {"y": y, **shared}
        if len(names) > 1:
            layer["encoding"]["yOffset"] = {"field": "series", "sort": names, "scale": {"paddingOuter": 0.1}}
    if beside and ends:
        said = [{"row": label, "value": ends[1], "said": beside[row]} for row, label in labels.items()]
        layers.append(
            {
                "data": {"values": said},
                "mark": {"type": "text", "align": "left", "dx": 14, "fontSize": 13, "color": INK},
                "encoding": {"x": x, "y": y, "text": {"field": "said"}},
            }
        )
    return {
        "data": {"values": kept},
        "usermeta": {"series": len(names), "letters": sum(map(len, names))},
        "height": max(1, len(labels)) * (line or 10 + 12 * max(2, len(names))),
        "layer": layers,
    }


def quantitative(field: str, title: str, *, percent: bool, domain: Sequence[float] | None = None) -> dict[str, Any]:
    """An axis of numbers."""
    scale: dict[str, Any] = {"domain": list(domain), "nice": False} if domain else {"nice": True, "zero": False}
    axis = {"title": title, "tickCount": 5, **({"format": ".0%"} if percent else {})}
    return {"field": field, "type": "quantitative", "scale": scale, "axis": axis}


def layers(found: Sequence[int], title: str) -> dict[str, Any]:
    """The axis of a model's layers, or of other whole numbers, with ticks at some of them."""
    first, last = min(found, default=0), max(found, default=0)
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**9) if (last - first) / each <= 12)
    axis = quantitative("x", title, percent=False)
    axis["axis"] |= {"format": "d", "values": list(range(first, last + 1, step))}
    # Vega drops ticks that are given where they are more than it would make.
    del axis["axis"]["tickCount"]
    axis["scale"] = {"domain": [first, last], "nice": False, "padding": 6}
    return axis


def look(names: Sequence[str], control: str | None = None) -> dict[str, tuple[str, str, list[int]]]:
    """Colour, shape and dash of each series; a control is drawn apart."""
    others = [name for name in names if name != control]
    found = {
        name: (SERIES[i % 4], SHAPES[i % len(SHAPES)], list(DASHES[i // 4 % len(DASHES)]))
        for i, name in enumerate(others)
    }
    return found if control is None else {**found, control: (CONTROL, "cross", [4, 4])}


def curves(
    data: Sequence[Mapping[str, Any]],
    series: Mapping[str, tuple[str, str, Sequence[int]]],
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    *,
    height: int = 280,
    intervals: bool = True,
    marks: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Curves with a mark at each point, an interval along y, and their names where they end.

    Args:
        data: rows with `series`, `x`, `y`, and where they are known `low` and `high`; in the order of the curve.
        series: by name, colour, shape and dash.
        x, y: axes of `quantitative`, of the fields x and y.
        intervals: draw them as bars.
        marks: layers that are drawn over the curves.
    """
    names = [name for name in series if any(row["series"] == name for row in data)]
    rows = [{**row, "order": number} for number, row in enumerate(data)]
    colour: dict[str, Any] = {"field": "series", "type": "nominal", "legend": None}
    colour["scale"] = {"domain": names, "range": [series[name][0] for name in names]}
    shape = {**colour, "scale": {"domain": names, "range": [series[name][1] for name in names]}}
    dash = {**colour, "scale": {"domain": names, "range": [list(series[name][2]) for name in names]}}
    percent = y["axis"].get("format") == ".0%"
    form = ".1%" if percent else ".4~g"
    tooltip = [
        {"field": "series", "title": " "},
        {
            "field": "x",
            "title": str(x["axis"]["title"]),
            "format": ".1%" if x["axis"].get("format") == ".0%" else ".4~g",
        },
        {"field": "y", "title": str(y["axis"]["title"]), "format": form},
        *([{"field": "low", "title": "from", "format": form}, {"field": "high", "title": "to", "format": form}]),
    ]
    ranged = [row for row in rows if row.get("low") is not None and row.get("high") is not None]
    bars = {
        "data": {"values": ranged},
        "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.45},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
    }
    order = {"field": "order", "type": "quantitative"}
    line = {
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash, "order": order},
    }
    point = {
        "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
        "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tooltip},
    }
    ends = _ends(rows, names, y, height)
    label: dict[str, Any] = {
        "data": {"values": ends},
        "mark": {"type": "text", "align": "left", "dx": 9, "baseline": "middle", "lineBreak": "\n", "lineHeight": 13},
        "encoding": {"x": x, "y": {**y, "field": "beside"}, "text": {"field": "label"}, "color": colour},
    }
    label["mark"]["cursor"] = "pointer"
    halo = {**label, "mark": {**label["mark"], "stroke": PAPER, "strokeWidth": 4, "strokeJoin": "round"}}
    spec = {
        "data": {"values": rows},
        "height": height,
        "padding": {"left": 5, "top": 24, "bottom": 5, "right": 5},
        "layer": [*([bars] if intervals and ranged else []), line, point, *filled(marks), halo, label],
    }
    return with_choice(spec, "series") if len(names) > 1 else spec


def filled(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The layers that have something to draw: of those with data of their own, the ones whose data are not empty."""
    return [layer for layer in layers if layer.get("data", {}).get("values", True)]


def _ends(rows: Sequence[Mapping[str, Any]], names: Sequence[str], y: Mapping[str, Any], height: int) -> list[Any]:
    """The name of each curve beside its last point, as far apart that they can be read."""
    of_decades = y["scale"].get("type") == "log"
    place: Callable[[float], float] = log10 if of_decades else float
    last = {row["series"]: row for row in rows}
    ends = [
        {"series": name, "x": last[name]["x"], "y": place(last[name]["y"]), "label": wrapped(name, 16)}
        for name in names
    ]
    ends_of_y = [row[key] for row in rows for key in ("y", "low", "high") if row.get(key) is not None]
    given = y["scale"].get("domain") or [min(ends_of_y, default=0), max(ends_of_y, default=1)]
    domain = [place(end) for end in given]
    if of_decades and "domain" not in y["scale"]:
        domain = [floor(domain[0]), ceil(domain[1])]
    # An axis without a domain of its own reaches somewhat further, to round numbers.
    size = (domain[1] - domain[0]) * (1.0 if of_decades or "domain" in y["scale"] else 1.2) or 1.0
    beside: list[dict[str, Any]] = []
    for end in sorted(ends, key=lambda each: float(each["y"])):
        lines = end["label"].count("\n") + 1
        room = 0.0 if not beside else (beside[-1]["lines"] + lines) / 2 * 14 / height * size
        # The lowest keeps above the axis, whose figures stand there.
        least = beside[-1]["beside"] + room if beside else domain[0] + lines / 2 * 14 / height * size
        beside.append({**end, "lines": lines, "beside": max(end["y"], least)})
    over = beside[-1]["beside"] - domain[1] if beside else 0
    if over > 0:
        # What was pushed beyond the top pushes the others down.
        for end, above in zip(reversed(beside), [None, *reversed(beside)], strict=False):
            most = (
                domain[1]
                if above is None
                else above["beside"] - (above["lines"] + end["lines"]) / 2 * 14 / height * size
            )
            end["beside"] = min(end["beside"], most)
    for end in beside:
        # Several lines begin at their place and go down; they are to lie around it.
        end["beside"] += (end["lines"] - 1) / 2 * 13 / height * size
        if of_decades:
            end["beside"] = 10 ** end["beside"]
    return beside
