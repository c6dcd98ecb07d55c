"""Refusal against over-refusal along the strength of the edit: sweeps and categories of the studies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from weight_edit.report.charts import curves, look, quantitative
from weight_edit.report.figure import Figure, Section, Table
from weight_edit.report.numbers import counted, percent, share
from weight_edit.report.run_record import RunRecord
from weight_edit.report.theme import CONTROL, EDITED, SOFT
from weight_edit.report.values import cells, number, shortened, text, told_apart

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
T = TypeVar("T")


def strength(record: RunRecord) -> Section | None:
    """The trade-offs of a run's studies."""
    parts: list[Figure] = []
    for number_, study in enumerate(record.studies, 1):
        sweep, known = record.table(study, "sweep"), record.table(study, "curves")
        parts += [*_sweep(number_, sweep)] if sweep else []
        parts += [*_categories(number_, known)] if known else []
    return Section(name="strength", title="Along the strength of the edit", parts=tuple(parts)) if parts else None


def _sweep(number_: int, found: Rows) -> Iterator[Figure]:
    of_base = [row for row in found if row.get("directions") == "none"]
    names = [name for name in _names(found, "directions") if name != "none"]
    for place, name in enumerate([each for each in names if each != RANDOM][:4], 1):
        mine = _by_strength([*of_base, *(row for row in found if row.get("directions") == name)])
        if len({row["strength"] for row in mine}) < 3:
            continue
        control = _by_strength([*of_base, *(row for row in found if row.get("directions") == RANDOM)])
        picture = f"strength-{number_}-{MAIN if name == MAIN else place}"
        yield from _against_strength(picture, name, mine, control if RANDOM in names else [])
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


def _names(found: Rows, key: str) -> list[str]:
    """The directions of a table, as it names them: what is shown of a name may be that of another, too."""
    return list(dict.fromkeys(name for row in found if isinstance(name := row.get(key), str) and name.strip()))


def _words(names: Iterable[str]) -> dict[str, str]:
    """Directions as a picture names them."""
    known = {RANDOM: "random direction", MAIN: "the found direction"}
    return told_apart(names, lambda name: known.get(name) or shortened(text(name) or "?", 40))


def _against_strength(picture: str, name: str, mine: Rows, control: Rows) -> Iterator[Figure]:
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
        name=picture,
        title=f"Refusal along the strength of the edit{'' if name == MAIN else f', directions “{text(name)}”'}",
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


def _categories(number_: int, found: Rows) -> Iterator[Figure]:
    drawn = {
        name: _by_strength([row for row in found if row.get("direction") == name])
        for name in _names(found, "direction")
    }
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
    values = {
        (each, float(row["strength"])): value
        for each, rows in drawn.items()
        if each != RANDOM
        for row in rows
        if (value := number(row.get(key))) is not None
    }
    count, middle = _shared(values)
    if len(middle) < 2:
        return
    mean = f"mean of {counted(count, 'direction')}"
    control = [(float(row["strength"]), found) for row in drawn.get(RANDOM, ()) if (found := cells(row, key))]
    data = [{"series": mean, "x": x, "y": sum(found) / count, "low": None, "high": None} for x, found in middle]
    data += [{"series": "random direction", "x": x, "y": f.value, "low": f.low, "high": f.high} for x, f in control]
    x, y = (
        quantitative("x", "steering strength", percent=False),
        quantitative("y", "refused", percent=True, domain=[0, 1]),
    )
    spec = curves(data, {mean: (EDITED, "diamond", [1, 0]), "random direction": (CONTROL, "cross", [4, 4])}, x, y)
    band = {
        "data": {"values": [{"x": at, "least": min(found), "most": max(found)} for at, found in middle]},
        "mark": {"type": "area", "color": EDITED, "opacity": 0.18},
        "encoding": {"x": x, "y": {**y, "field": "least"}, "y2": {"field": "most"}},
    }
    by_strength = {float(row["strength"]): found for row in drawn.get(RANDOM, ()) if (found := cells(row, key))}
    yield Figure(
        name=name,
        title=f"{words} under steering along {counted(count, 'direction')}",
        reading="The line is the mean over the directions and the band reaches from the least of them to the largest: "
        "where it is narrow, the direction of any category does the same. The grey curve is a random direction.",
        alt="A curve with a band around it over the steering strength, and a dashed curve of a random direction.",
        spec={**spec, "layer": [band, *spec["layer"]]},
        table=Table(
            ("strength", "mean", "least", "largest", "random direction"),
            tuple(
                (
                    f"{at:g}",
                    *(percent(value) for value in (sum(found) / count, min(found), max(found))),
                    share(by_strength.get(at)),
                )
                for at, found in middle
            ),
        ),
    )


def _shared(values: Mapping[tuple[str, float], T]) -> tuple[int, list[tuple[float, list[T]]]]:
    """The largest number of directions that share a strength, and their values at each strength that so many share.

    Args:
        values: by direction and strength.
    """
    found: dict[float, list[T]] = {}
    for (_, strength_), value in values.items():
        found.setdefault(strength_, []).append(value)
    most = max((len(each) for each in found.values()), default=0)
    return most, sorted(((at, each) for at, each in found.items() if len(each) == most), key=lambda pair: pair[0])


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
    # Strengths and names stand beside points, which often lie in a corner.
    x["scale"] |= {"padding": 28}
    y["scale"] |= {"padding": 14}
    names = _words([*(each for each in (RANDOM, MAIN) if each in known), *known])
    thin: list[dict[str, Any]] = []
    data: list[dict[str, Any]] = []
    if many:
        # Both rates of a strength together: a direction that lacks one of them there is in neither mean.
        count, middle = _shared({(each, at): (a.value, b.value) for each in others for at, a, b in known[each]})
        mean = f"mean of {counted(count, 'direction')}"
        for at, pairs in middle:
            middle_x, middle_y = (sum(values) / count for values in zip(*pairs, strict=True))
            data.append({"series": mean, "x": middle_x, "y": middle_y, "low": None, "high": None, "strength": at})
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
