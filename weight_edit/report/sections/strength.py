"""Refusal against over-refusal along the strength of the edit: sweeps and categories of the studies."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from weight_edit.report.charts import curves, look, quantitative
from weight_edit.report.figure import Figure, Section, Table
from weight_edit.report.numbers import share
from weight_edit.report.run_record import RunRecord
from weight_edit.report.theme import CONTROL, EDITED, SOFT
from weight_edit.report.values import cells, number, text

RANDOM, MAIN = "random", "main"
"""The names of the control and of the recipe's own directions in studies."""

_RATES = {
    "refusal": "refused requests",
    "over_refusal": "over-refused, harmless ones",
    "looking": "harmless-looking ones",
    "answered_refusal": "ordinary ones",
}
_MANY = 4
"""Directions from which on their mean stands for them."""

Rows = Sequence[Mapping[str, Any]]


def strength(record: RunRecord) -> Section | None:
    """The trade-offs of a run's studies."""
    parts: list[Figure] = []
    for number_, study in enumerate(record.studies, 1):
        sweep, known = record.table(study, "sweep"), record.table(study, "curves")
        parts += [*_sweep(number_, study, sweep)] if sweep else []
        parts += [*_categories(number_, study, known)] if known else []
    return Section(name="strength", title="Along the strength of the edit", parts=tuple(parts)) if parts else None


def _sweep(number_: int, study: str, found: Rows) -> Iterator[Figure]:
    of_base = [row for row in found if row.get("directions") == "none"]
    names = list(
        dict.fromkeys(text(row.get("directions"), 40) or "?" for row in found if row.get("directions") != "none")
    )
    for name in [each for each in names if each != RANDOM][:4]:
        mine = _by_strength([*of_base, *(row for row in found if row.get("directions") == name)])
        if len({row["strength"] for row in mine}) < 3:
            continue
        control = _by_strength([*of_base, *(row for row in found if row.get("directions") == RANDOM)])
        yield from _against_strength(number_, study, name, mine, control if RANDOM in names else [])
    drawn = {name: [*of_base, *(row for row in found if row.get("directions") == name)] for name in names}
    yield from _trade_off(
        f"trade-off-{number_}",
        "Refusal against over-refusal along the strength",
        {name: _by_strength(rows) for name, rows in drawn.items()},
        ("over_refusal", "refusal"),
    )


def _by_strength(found: Rows) -> list[Mapping[str, Any]]:
    known = [row for row in found if number(row.get("strength")) is not None]
    return sorted(known, key=lambda row: float(row["strength"]))


def _against_strength(number_: int, study: str, name: str, mine: Rows, control: Rows) -> Iterator[Figure]:
    data, table = [], []
    shown = [key for key in _RATES if any(cells(row, key) for row in mine)]
    for key in shown:
        for row in mine:
            found = cells(row, key)
            if found is not None:
                data.append(_point(_RATES[key], row["strength"], found))
                table.append((_RATES[key], f"{float(row['strength']):g}", share(found)))
    apart = "refused requests, random direction"
    for row in control:
        found = cells(row, "refusal")
        if found is not None:
            data.append(_point(apart, row["strength"], found))
            table.append((apart, f"{float(row['strength']):g}", share(found)))
    if not data:
        return
    yield Figure(
        name=f"strength-{number_}-{_slug(name)}",
        title=f"Refusal along the strength of the edit{'' if name == MAIN else f', directions “{name}”'}",
        reading="At 0 the model is as it was. The dashed grey curve is a random direction: what it does too, any "
        "change of that size does.",
        alt="Curves of refusal rates over the strength of the edit, one for each kind of request, one of a control.",
        spec=curves(
            data,
            look([*(_RATES[key] for key in shown), *([apart] if control else [])], apart if control else None),
            quantitative("x", "strength of the edit", percent=False),
            quantitative("y", "refused", percent=True, domain=[0, 1]),
        ),
        table=Table(("requests", "strength", "refused"), tuple(table)),
    )


def _point(series: str, x: float, found: Any) -> dict[str, Any]:
    return {"series": series, "x": float(x), "y": found.value, "low": found.low, "high": found.high}


def _categories(number_: int, study: str, found: Rows) -> Iterator[Figure]:
    names = list(dict.fromkeys(text(row.get("direction"), 40) or "?" for row in found))
    drawn = {name: _by_strength([row for row in found if row.get("direction") == name]) for name in names}
    for key, words in (
        ("refusal_rate", "Refusal of harmful requests"),
        ("over_refusal_rate", "Refusal of benign requests"),
    ):
        yield from _band(f"steering-{number_}-{key.partition('_')[0]}", words, drawn, key)
    yield from _trade_off(
        f"trade-off-{number_}",
        "Refusal against over-refusal, by category of the direction",
        drawn,
        ("over_refusal_rate", "refusal_rate"),
    )


def _band(name: str, words: str, drawn: Mapping[str, Rows], key: str) -> Iterator[Figure]:
    """The mean over directions with the band from the least to the largest, and the control."""
    others = {each: rows for each, rows in drawn.items() if each != RANDOM}
    middle = _mean(others, key)
    if len(middle) < 2:
        return
    mean = f"mean of {len(others)} directions"
    control = [(float(row["strength"]), found) for row in drawn.get(RANDOM, ()) if (found := cells(row, key))]
    data = [{"series": mean, "x": x, "y": y, "low": None, "high": None} for x, y, _, _ in middle]
    data += [{"series": "random direction", "x": x, "y": f.value, "low": f.low, "high": f.high} for x, f in control]
    x, y = (
        quantitative("x", "steering strength", percent=False),
        quantitative("y", "refused", percent=True, domain=[0, 1]),
    )
    spec = curves(data, {mean: (EDITED, "diamond", [1, 0]), "random direction": (CONTROL, "cross", [4, 4])}, x, y)
    band = {
        "data": {"values": [{"x": at, "least": low, "most": high} for at, _, low, high in middle]},
        "mark": {"type": "area", "color": EDITED, "opacity": 0.18},
        "encoding": {"x": x, "y": {**y, "field": "least"}, "y2": {"field": "most"}},
    }
    by_strength = {float(row["strength"]): found for row in drawn.get(RANDOM, ()) if (found := cells(row, key))}
    yield Figure(
        name=name,
        title=f"{words} under steering along {len(others)} directions",
        reading="The line is the mean over the directions and the band reaches from the least of them to the largest: "
        "where it is narrow, the direction of any category does the same. The grey curve is a random direction.",
        alt="A curve with a band around it over the steering strength, and a dashed curve of a random direction.",
        spec={**spec, "layer": [band, *spec["layer"]]},
        table=Table(
            ("strength", "mean", "least", "largest", "random direction"),
            tuple(
                (f"{at:g}", f"{100 * y:.1f} %", f"{100 * low:.1f} %", f"{100 * high:.1f} %", share(by_strength.get(at)))
                for at, y, low, high in middle
            ),
        ),
    )


def _mean(drawn: Mapping[str, Rows], key: str) -> list[tuple[float, float, float, float]]:
    """Strength, mean, least and largest over the directions, at strengths that all of them have."""
    found: dict[float, list[float]] = {}
    for rows in drawn.values():
        for row in rows:
            value = number(row.get(key))
            if value is not None:
                found.setdefault(float(row["strength"]), []).append(value)
    most = max((len(values) for values in found.values()), default=0)
    kept = sorted((at, values) for at, values in found.items() if len(values) == most)
    return [(at, sum(values) / len(values), min(values), max(values)) for at, values in kept]


def _trade_off(name: str, title: str, drawn: Mapping[str, Rows], keys: tuple[str, str]) -> Iterator[Figure]:
    """One rate against the other, each curve in the order of the strengths."""
    across, up = keys
    known = {
        each: [(float(row["strength"]), a, b) for row in rows if (a := cells(row, across)) and (b := cells(row, up))]
        for each, rows in drawn.items()
    }
    known = {each: points for each, points in known.items() if len(points) >= 2}
    others = [each for each in known if each != RANDOM]
    if not others:
        return
    many = len(others) > _MANY
    x = quantitative("x", "over-refusal: harmless requests refused", percent=True, domain=[0, 1])
    y = quantitative("y", "refused requests refused", percent=True, domain=[0, 1])
    names = {each: {RANDOM: "random direction", MAIN: "the found direction"}.get(each, each) for each in known}
    thin: list[dict[str, Any]] = []
    data: list[dict[str, Any]] = []
    if many:
        mean = f"mean of {len(others)} directions"
        firsts, seconds = (_mean({each: drawn[each] for each in others}, key) for key in keys)
        data += [
            {"series": mean, "x": a, "y": b, "low": None, "high": None, "strength": at}
            for (at, a, _, _), (_, b, _, _) in zip(firsts, seconds, strict=False)
        ]
        thin = [
            {"one": number_, "x": a.value, "y": b.value, "at": at}
            for number_, each in enumerate(others)
            for at, a, b in known[each]
        ]
        style = {mean: (EDITED, "diamond", [1, 0])}
    else:
        style = look([names[each] for each in others])
    for each in [*([] if many else others), *([RANDOM] if RANDOM in known else [])]:
        data += [{**_point(names[each], a.value, b), "strength": at} for at, a, b in known[each]]
    if RANDOM in known:
        style["random direction"] = (CONTROL, "cross", [4, 4])
    spec = curves(data, style, x, y, height=340, intervals=False, marks=[_strengths(data, x, y)])
    if thin:
        lines = {
            "data": {"values": thin},
            "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.45, "color": SOFT},
            "encoding": {"x": x, "y": y, "detail": {"field": "one"}, "order": {"field": "at", "type": "quantitative"}},
        }
        spec = {**spec, "layer": [lines, *spec["layer"]]}
    yield Figure(
        name=name,
        title=title,
        reading="Each curve goes from the smallest strength to the largest, whose numbers stand beside it. An edit "
        "that tells the two kinds of requests apart leaves the diagonal; the random direction is drawn apart.",
        alt="Curves of one refusal rate against the other; both axes go from 0 to 100 %.",
        spec=spec,
        table=Table(
            ("direction", "strength", "over-refusal", "refusal"),
            tuple(
                (names[each], f"{at:g}", share(a), share(b)) for each, points in known.items() for at, a, b in points
            ),
        ),
    )


def _strengths(data: Sequence[Mapping[str, Any]], x: Mapping[str, Any], y: Mapping[str, Any]) -> dict[str, Any]:
    """The strengths beside the points of the first curve, where they do not lie on one another."""
    shown: list[dict[str, Any]] = []
    first = data[0]["series"] if data else None
    for row in data:
        far = all(abs(row["x"] - each["x"]) + abs(row["y"] - each["y"]) > 0.07 for each in shown)
        if row["series"] == first and far:
            shown.append({"x": row["x"], "y": row["y"], "label": f"{row['strength']:g}"})
    return {
        "data": {"values": shown},
        "mark": {"type": "text", "dx": -8, "dy": -9, "align": "right", "fontSize": 11, "color": SOFT},
        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
    }


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower())[:30] or "x"
