"""The classes of prompts in the residual stream, before and after: along the direction, and across it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weight_edit.report.charts import AFTER, BEFORE, MODELS, curves, filled, layers, quantitative
from weight_edit.report.figure import Figure, Section, Table
from weight_edit.report.interaction import with_choice, with_zoom
from weight_edit.report.numbers import small
from weight_edit.report.run_record import RunRecord
from weight_edit.report.theme import CONTROL, DASHES, INK, SERIES, SHAPES
from weight_edit.report.values import Estimate, entries, estimate, named, number, rows, text, whole

_MODELS = {"base": BEFORE, "edited": AFTER}
_WORDS = {
    "refused": "refused requests",
    "answered": "ordinary requests",
    "over_refused": "over-refused, harmless ones",
    "harmless_looking": "harmless-looking",
}
_DEALT = "dealt at random"
_MOST_LAYERS = 2000
_MOST = 1600
_STEPS = 48
_TWO = 2.0
"""Standard deviations that an ellipse reaches."""


def geometry(record: RunRecord) -> Section | None:
    """The papers' picture, where a run has measured it."""
    found = entries(record.json("geometry.json"))
    parts = [*_plane(found), *_components(found), *_separation(found)]
    return Section(name="geometry", title="In the residual stream", parts=tuple(parts)) if parts else None


def _plane(found: Mapping[str, Any]) -> Iterator[Figure]:
    classes = [each for each in rows(found.get("classes"), 64) if _centre(each) is not None]
    names = list(dict.fromkeys(str(each.get("class")) for each in classes))[:4]
    if not names:
        return
    words = {name: _WORDS.get(name, text(name, 30) or "?") for name in names}
    looks = {words[name]: (SERIES[i % 4], SHAPES[i % len(SHAPES)]) for i, name in enumerate(names)}
    across = text(entries(found.get("axes")).get("across"), 300)
    x = quantitative("x", "along the direction", percent=False)
    y = quantitative("y", "across it", percent=False)
    spec = _drawn(found, classes, words=words, looks=looks, x=x, y=y)
    layer, position = whole(found.get("layer")), found.get("position")
    where = "" if layer is None else f" at layer {layer}, position {named(position)}"
    yield Figure(
        name="geometry",
        title=f"The classes of prompts before and after the edit{where}",
        reading="Each arrow leads from a class's centre before the edit (hollow) to that after it (filled); ellipses "
        "hold two standard deviations, dashed before. Classes that the direction told apart lie over one another "
        f"after an ablation.{f' Across is {across}.' if across else ''}",
        alt="Points of prompts in a plane, with a centre and an ellipse for each class before and after the edit, and "
        "arrows from before to after.",
        spec=with_zoom(with_choice(spec, "kind", by_legend=True)),
        table=Table(
            ("class, model", "along", "across", "prompts"),
            tuple(
                (
                    f"{words[str(each.get('class'))]}, {_MODELS.get(str(each.get('model')), '?')}",
                    *(f"{value:.3g}" for value in _centre(each) or ()),
                    named(each.get("count")),
                )
                for each in classes
                if str(each.get("class")) in words
            ),
        ),
    )


def _drawn(
    found: Mapping[str, Any],
    classes: Sequence[Mapping[str, Any]],
    *,
    words: Mapping[str, str],
    looks: Mapping[str, tuple[str, str]],
    x: Mapping[str, Any],
    y: Mapping[str, Any],
) -> dict[str, Any]:
    colour = {"field": "kind", "type": "nominal", "legend": {"title": None, "offset": 28}}
    colour["scale"] = {"domain": list(looks), "range": [look[0] for look in looks.values()]}
    shape = {**colour, "scale": {"domain": list(looks), "range": [look[1] for look in looks.values()]}}
    points = [
        {"kind": words[str(row.get("class"))], "model": _MODELS[str(row.get("model"))], "x": a, "y": b}
        for row in rows(found.get("points"), 20_000)
        if str(row.get("class")) in words and str(row.get("model")) in _MODELS
        if (a := number(row.get("along"))) is not None and (b := number(row.get("across"))) is not None
    ][:_MOST]
    known = [each for each in classes if str(each.get("class")) in words and str(each.get("model")) in _MODELS]
    centres = [
        {"kind": words[str(each.get("class"))], "model": _MODELS[str(each.get("model"))], "x": at[0], "y": at[1]}
        for each in known
        if (at := _centre(each)) is not None
    ]
    ellipses = [row for each in known for row in _ellipse(each, words)]
    both = {"x": x, "y": y, "color": colour}
    tooltip = [{"field": "kind", "title": " "}, {"field": "model"}, {"field": "x", "format": ".3~g", "title": "along"}]
    tooltip.append({"field": "y", "format": ".3~g", "title": "across"})
    line = {"order": {"field": "order", "type": "quantitative"}, "detail": [{"field": "model"}]}
    return {
        "height": 420,
        "usermeta": {"square": 460, "widest": 820},
        "layer": filled(
            [
                {
                    "data": {"values": points},
                    "mark": {"type": "point", "filled": True, "size": 14, "opacity": 0.35},
                    "encoding": {**both, "shape": shape},
                },
                {
                    "data": {"values": [row for row in ellipses if row["model"] == BEFORE]},
                    "mark": {"type": "line", "strokeWidth": 1.5, "strokeDash": [4, 3]},
                    "encoding": {**both, **line},
                },
                {
                    "data": {"values": [row for row in ellipses if row["model"] == AFTER]},
                    "mark": {"type": "line", "strokeWidth": 2},
                    "encoding": {**both, **line},
                },
                *_arrows(centres, x, y),
                {
                    "data": {"values": [row for row in centres if row["model"] == BEFORE]},
                    "mark": {"type": "point", "filled": False, "size": 130, "strokeWidth": 2.5, "opacity": 1},
                    "encoding": {**both, "shape": shape, "tooltip": tooltip},
                },
                {
                    "data": {"values": [row for row in centres if row["model"] == AFTER]},
                    "mark": {"type": "point", "filled": True, "size": 150, "opacity": 1},
                    "encoding": {**both, "shape": shape, "tooltip": tooltip},
                },
            ]
        ),
    }


def _arrows(centres: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line from each centre before to that after, and a head that points as the line does."""
    by = {(each["kind"], each["model"]): each for each in centres}
    width = _span([each["x"] for each in centres])
    height = _span([each["y"] for each in centres])
    lines = []
    for kind in dict.fromkeys(each["kind"] for each in centres):
        start, end = by.get((kind, BEFORE)), by.get((kind, AFTER))
        if start is None or end is None:
            continue
        # The angle on the page: a plane that is wider than high by this much.
        dx, dy = (end["x"] - start["x"]) / width * 1.6, (end["y"] - start["y"]) / height
        if math.hypot(dx, dy) > 0.04:
            angle = math.degrees(math.atan2(dx, dy))
            middle = {"mx": (start["x"] + end["x"]) / 2, "my": (start["y"] + end["y"]) / 2, "angle": angle}
            lines.append({"x": start["x"], "y": start["y"], "x2": end["x"], "y2": end["y"], **middle})
    return [
        {
            "data": {"values": lines},
            "mark": {"type": "rule", "color": INK, "strokeWidth": 1.5, "opacity": 0.8},
            "encoding": {"x": x, "y": y, "x2": {"field": "x2"}, "y2": {"field": "y2"}},
        },
        {
            "data": {"values": lines},
            "mark": {"type": "point", "shape": "triangle", "filled": True, "size": 90, "color": INK, "opacity": 1},
            "encoding": {
                "x": {**x, "field": "mx"},
                "y": {**y, "field": "my"},
                "angle": {"field": "angle", "type": "quantitative", "scale": None},
            },
        },
    ]


def _span(values: Sequence[float]) -> float:
    return (max(values) - min(values)) or 1.0


def _centre(each: Mapping[str, Any]) -> tuple[float, float] | None:
    found = each.get("centre")
    if not isinstance(found, list) or len(found) != 2:
        return None
    x, y = number(found[0]), number(found[1])
    return None if x is None or y is None else (x, y)


def _ellipse(each: Mapping[str, Any], words: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The outline of a class at two standard deviations: its centre and covariance, as they were measured."""
    centre, found = _centre(each), each.get("covariance")
    if centre is None or not isinstance(found, list) or len(found) != 2:
        return
    cells = [number(cell) for row in found if isinstance(row, list) for cell in row]
    if len(cells) != 4 or any(cell is None for cell in cells):
        return
    a, b, d = float(cells[0] or 0), float(cells[1] or 0), float(cells[3] or 0)
    if a < 0 or d < 0:
        return
    # The Cholesky factor maps a circle to the ellipse.
    first = math.sqrt(a)
    second = b / first if first else 0.0
    third = math.sqrt(max(0.0, d - second * second))
    kind, model = words[str(each.get("class"))], _MODELS[str(each.get("model"))]
    for step in range(_STEPS + 1):
        angle = 2 * math.pi * step / _STEPS
        u, v = _TWO * math.cos(angle), _TWO * math.sin(angle)
        x, y = centre[0] + first * u, centre[1] + second * u + third * v
        yield {"kind": kind, "model": model, "x": x, "y": y, "order": step}


def _separation(found: Mapping[str, Any]) -> Iterator[Figure]:
    """How well the two classes are told apart at each layer, beside what chance gives."""
    data: list[dict[str, Any]] = []
    table: dict[int, dict[str, str]] = {}
    chance = rows(entries(found.get("control")).get("separation"), _MOST_LAYERS)
    known = [*rows(found.get("separation"), _MOST_LAYERS), *({**row, "is_chance": True} for row in chance)]
    for row in known:
        layer = whole(row.get("layer"))
        for name, model in ({"": _DEALT} if row.get("is_chance") else _MODELS).items():
            area = estimate(row.get(name) if name else row)
            if layer is None or area is None:
                continue
            data.append({"series": model, "x": layer, "y": area.value, "low": area.low, "high": area.high})
            table.setdefault(layer, {})[model] = _said(area)
    if len(table) < 2:
        return
    data.sort(key=lambda row: row["x"])
    names = [name for name in (BEFORE, AFTER, _DEALT) if any(row["series"] == name for row in data)]
    low = min(0.4, *(row["y"] if row["low"] is None else row["low"] for row in data))
    y = quantitative(
        "y", "area under the ROC curve", percent=False, domain=[low, max(1.0, *(row["y"] for row in data))]
    )
    yield Figure(
        name="separation",
        title="How well refused and ordinary requests are told apart, layer by layer",
        reading="Along each layer's own mean difference, taken from one half of the prompts and looked at on the "
        "other: 1 tells all of them apart, 0.5 is chance. What stays high after the edit is told by other directions "
        "than the one that was removed. Bars are 95% intervals.",
        alt="A curve for each model over the layers, from 0.5, which is chance, to 1.",
        spec=curves(
            data,
            {
                **{model: (*MODELS[model], DASHES[i]) for i, model in enumerate(MODELS)},
                _DEALT: (CONTROL, "cross", [4, 4]),
            },
            layers([row["x"] for row in data], "layer whose input is read"),
            y,
        ),
        table=Table(
            ("layer", *names),
            tuple((str(layer), *(each.get(name, "") for name in names)) for layer, each in sorted(table.items())),
        ),
    )


def _components(found: Mapping[str, Any]) -> Iterator[Figure]:
    """The mean component along the direction at each layer, of refused and of ordinary requests."""
    data: list[dict[str, Any]] = []
    table: list[tuple[str, ...]] = []
    looks: dict[str, tuple[str, str, Sequence[int]]] = {}
    for row in rows(found.get("components"), 20_000):
        name, model, layer = str(row.get("class")), _MODELS.get(str(row.get("model"))), whole(row.get("layer"))
        mean = estimate(row, "mean")
        if name not in ("refused", "answered") or model is None or layer is None or mean is None:
            continue
        series = f"{_WORDS[name]}, {model}"
        number_ = 0 if name == "refused" else 1
        looks[series] = (SERIES[number_], SHAPES[number_], DASHES[model == AFTER])
        data.append({"series": series, "x": layer, "y": mean.value, "low": mean.low, "high": mean.high})
        table.append((series, str(layer), _said(mean)))
    if len({row["x"] for row in data}) < 2:
        return
    data.sort(key=lambda row: row["x"])
    yield Figure(
        name="components",
        title="The component along the direction, layer by layer",
        reading="Before the edit the two kinds of requests part along the direction; what is ablated lies at 0 in "
        "every layer. Means over prompts with 95% intervals; after the edit dashed.",
        alt="Curves over the layers: the mean component of two kinds of requests before and after the edit.",
        spec=curves(
            data,
            looks,
            layers([row["x"] for row in data], "layer whose input is read"),
            quantitative("y", "component along the direction", percent=False),
        ),
        table=Table(("requests, model", "layer", "mean component"), tuple(table)),
    )


def _said(known: Estimate) -> str:
    ends = "" if known.low is None else f" [{small(known.low)}, {small(known.high)}]"
    return f"{small(known.value)}{ends}"
