"""A search: its front with the point that was taken, and how well the cheap score ranked."""

from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.report.charts import filled, quantitative
from weight_edit.report.figure import Figure, Notes, Section, Table
from weight_edit.report.interaction import with_choice, with_zoom
from weight_edit.report.numbers import counted, share, small
from weight_edit.report.run_record import RunRecord
from weight_edit.report.theme import BASE, CONTROL, EDITED, INK, SOFT, THIRD
from weight_edit.report.values import Estimate, at, entries, number, numbered, rate, rows, text, texts, whole

FRONT, OTHER, PLAIN, TAKEN = "on the front", "judged, off the front", "plain ablation", "taken"
_LOOKS = {FRONT: (BASE, "circle"), OTHER: (CONTROL, "cross"), PLAIN: (THIRD, "square"), TAKEN: (EDITED, "diamond")}
_MOST = 500


def search_front(record: RunRecord) -> Section | None:
    """The judged points of a search."""
    found = record.search
    points = [*_points(found)]
    if not points:
        return None
    parts: list[Any] = [Notes(tuple(_said(found, len(points)))), *_front(points), *_ranking(points, found)]
    return Section(name="search", title="The search", parts=tuple(parts))


def _points(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The judged points with what is drawn of them."""
    taken = text(at(found, "picked.point.digest")) or text(at(found, "picked.digest")) or text(found.get("picked"))
    plain = entries(found.get("plain"))
    seen: set[str] = set()
    listed = [(FRONT, each) for each in rows(found.get("front"), _MOST)]
    listed += [(PLAIN, plain)] if plain else []
    listed += [(OTHER, each) for each in rows(found.get("others"), _MOST)]
    for kind, point in listed:
        digest = text(point.get("digest"), 40) or "?"
        refused, over = _judged(point, "refused"), _judged(point, "over_refused")
        damage = number(at(point, "cheap.validation.damage"))
        if digest in seen or refused is None or damage is None:
            continue
        seen.add(digest)
        is_plain = digest == text(plain.get("digest"), 40)
        yield {
            "kind": TAKEN if digest == taken else PLAIN if is_plain else kind,
            "digest": digest,
            "origin": text(point.get("origin"), 60) or "?",
            "directions": whole(point.get("directions")) or 1,
            "damage": damage,
            "refused": refused,
            "over": over,
            "cheap": number(at(point, "cheap.validation.refusal")),
        }


def _judged(point: Mapping[str, Any], name: str) -> Estimate | None:
    """The judged rate at the longest length; of a record that counts verdicts, what it says itself."""
    of = at(point, f"judged.sets.{name}")
    known = rate(at(of, "refusal"))
    if known is not None:
        return known
    by_length = [found for _, each in numbered(at(of, "refusal")) if (found := rate(each)) is not None]
    return by_length[-1] if by_length else None


def _said(found: Mapping[str, Any], judged: int) -> Iterator[str]:
    candidates = whole(found.get("candidates"))
    if candidates is not None:
        yield f"{counted(candidates, 'candidate')} scored by the cheap score; the answers of {judged} were judged."
    reason = text(at(found, "picked.reason"), 600)
    if reason:
        yield f"What was taken, and why: {reason}."
    for key, words in (("tau", "On the judged points"), ("sketch_tau", "Of the first, cheaper sketch")):
        said = text(at(found, f"{key}.sentence"), 600)
        if said:
            yield f"{words}: {said}."
    yield from (f"To note: {said}." for said in texts(found.get("warnings"), 10))


def _front(points: list[dict[str, Any]]) -> Iterator[Figure]:
    least = min((each["damage"] for each in points if each["damage"] > 0), default=1e-4)
    floor = max(1e-6, least / 2)
    data = [
        {
            "kind": each["kind"],
            "x": max(each["damage"], floor),
            "y": each["refused"].value,
            "low": each["refused"].low,
            "high": each["refused"].high,
            "over": None if each["over"] is None else each["over"].value,
            "origin": each["origin"],
        }
        for each in points
    ]
    kinds = [kind for kind in _LOOKS if any(each["kind"] == kind for each in data)]
    x = quantitative("x", "damage: divergence on ordinary prompts, nats per token", percent=False)
    ends = [min(each["x"] for each in data) / 1.6, max(each["x"] for each in data) * 1.6]
    x["scale"] = {"type": "log", "nice": False, "domain": ends}
    x["axis"] |= {"format": ".0e", "tickCount": 4}
    # A little more than the shares, for a view that can be moved cuts marks at its edge.
    y = quantitative("y", "refused requests still refused", percent=True, domain=[-0.04, 1.04])
    colour = {"field": "kind", "type": "nominal", "legend": {"title": None, "offset": 28}}
    colour["scale"] = {"domain": kinds, "range": [_LOOKS[kind][0] for kind in kinds]}
    shape = {**colour, "scale": {"domain": kinds, "range": [_LOOKS[kind][1] for kind in kinds]}}
    tooltip = [
        {"field": "kind", "title": " "},
        {"field": "origin", "title": "from"},
        {"field": "y", "title": "refusal", "format": ".1%"},
        {"field": "over", "title": "over-refusal", "format": ".1%"},
        {"field": "x", "title": "damage", "format": ".2e"},
    ]
    plane = all(each["over"] is None for each in data)
    steps = sorted((each for each in data if each["kind"] in (FRONT, TAKEN) and plane), key=lambda each: each["x"])
    by = "refusal and damage" if plane else "refusal, damage and over-refusal together"
    order = sorted(points, key=lambda each: each["damage"])
    spec = {
        "data": {"values": data},
        "height": 320,
        "layer": filled(
            [
                {
                    "data": {"values": steps},
                    "mark": {"type": "line", "interpolate": "step-after", "color": SOFT, "strokeWidth": 1.5},
                    "encoding": {"x": x, "y": y},
                },
                {
                    "data": {"values": [each for each in data if each["low"] is not None]},
                    "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.4},
                    "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": colour},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 95, "opacity": 1},
                    "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": tooltip},
                },
            ]
        ),
    }
    yield Figure(
        name="front",
        title="The search's front: refusal that is left against damage",
        reading=f"Lower and further left is better; no judged point beats one of the front in {by}. The diamond was "
        "taken.",
        alt="Points of judged edits: damage across, on a logarithmic axis, refusal up.",
        spec=with_zoom(with_choice(spec, "kind", by_legend=True)),
        table=Table(
            ("point", "is", "from", "damage", "refusal", "over-refusal", "directions"),
            tuple(
                (
                    each["digest"],
                    each["kind"],
                    each["origin"],
                    small(each["damage"]),
                    share(each["refused"]),
                    share(each["over"]),
                    str(each["directions"]),
                )
                for each in order
            ),
        ),
    )


def _ranking(points: list[dict[str, Any]], found: Mapping[str, Any]) -> Iterator[Figure]:
    known = [each for each in points if each["cheap"] is not None]
    if len(known) < 3:
        return
    tau = number(at(found, "tau.value"))
    data = [{"x": each["cheap"], "y": each["refused"].value, "origin": each["origin"]} for each in known]
    x = quantitative("x", "cheap score of refusal", percent=False)
    y = quantitative("y", "judged refusal", percent=True, domain=[0, 1])
    tooltip = [{"field": "origin", "title": "from"}, {"field": "x", "format": ".3f", "title": "cheap score"}]
    tooltip.append({"field": "y", "format": ".1%", "title": "judged refusal"})
    said = "" if tau is None else f" Kendall's tau is {tau:.2f}."
    yield Figure(
        name="ranking",
        title="How well the cheap score ranked: score against judged refusal",
        reading=f"Points that rise together mean that the score orders edits as the judge does.{said}",
        alt="Points of judged edits: the cheap score across, the judged refusal rate up.",
        spec={
            "data": {"values": data},
            "height": 280,
            "usermeta": {"widest": 560},
            "mark": {"type": "point", "filled": True, "size": 80, "color": BASE, "stroke": INK, "strokeWidth": 0},
            "encoding": {"x": x, "y": y, "tooltip": tooltip},
        },
        table=Table(
            ("point", "cheap score", "judged refusal"),
            tuple((each["digest"], f"{each['cheap']:.3f}", share(each["refused"])) for each in known),
        ),
    )
