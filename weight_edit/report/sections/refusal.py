"""Refusal in detail: by category, by the length of the answer, and by kind of verdict."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from weight_edit.report.charts import AFTER, BEFORE, MODELS, curves, dot, dots, quantitative
from weight_edit.report.figure import Figure, Notes, Section, Table
from weight_edit.report.numbers import NONE, share
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.answers import SETS
from weight_edit.report.theme import DASHES
from weight_edit.report.values import at, entries, named, numbered, rate, shortened, text, told_apart, whole

_MOST_CATEGORIES = 40
_SIDES = ((BEFORE, "baseline"), (AFTER, "edited"))


def refusal(record: RunRecord) -> Section | None:
    """Where refusal changed, and in which way answers were judged."""
    parts: list[Figure | Table | Notes] = [*_by_length(record), *_by_category(record), *_verdicts(record)]
    return Section(name="refusal", title="Refusal in detail", parts=tuple(parts)) if parts else None


def _sets(record: RunRecord) -> list[str]:
    known = [*entries(record.baseline.get("sets")), *entries(record.edited.get("sets"))]
    return [name for name in SETS if name in known]


def _by_length(record: RunRecord) -> Iterator[Figure]:
    for name in _sets(record):
        data: list[dict[str, Any]] = []
        lines: dict[int, dict[str, str]] = {}
        for side, of in _SIDES:
            for length, found in numbered(at(getattr(record, of), f"sets.{name}.lengths")):
                known = rate(at(found, "refusal"))
                if known is not None:
                    data.append({"series": side, "x": length, "y": known.value, "low": known.low, "high": known.high})
                    lines.setdefault(length, {})[side] = share(known)
        moves = any(len({row["y"] for row in data if row["series"] == side}) > 1 for side in MODELS)
        if len(lines) < 2 or not (moves or name == "refused"):
            continue
        x = quantitative("x", "tokens of the answer that the judge read", percent=False)
        x["scale"] = {"type": "log", "base": 2, "nice": False}
        x["axis"] = {"title": x["axis"]["title"], "values": sorted(lines), "format": "d"}
        yield Figure(
            name=f"length-{name.replace('_', '-')}",
            title=f"Refusal against the length of the answer, {SETS[name]}",
            reading="Where the curve rises to the right, refusals come late, and a short limit misses them.",
            alt="A curve of the refusal rate for each model over the number of tokens that were judged.",
            spec=curves(
                data,
                {side: (*MODELS[side], DASHES[i]) for i, side in enumerate(MODELS)},
                x,
                quantitative("y", "refused", percent=True, domain=[0, 1]),
            ),
            table=Table(
                ("tokens", BEFORE, AFTER),
                tuple((str(n), row.get(BEFORE, NONE), row.get(AFTER, NONE)) for n, row in sorted(lines.items())),
            ),
        )


def _by_category(record: RunRecord) -> Iterator[Figure]:
    for name in _sets(record):
        known = {
            side: {
                key: rate(found) for key, found in entries(at(getattr(record, of), f"sets.{name}.categories")).items()
            }
            for side, of in _SIDES
        }
        names = list(dict.fromkeys([*known[BEFORE], *known[AFTER]]))
        values = {found.value for of in known.values() for found in of.values() if found is not None}
        if len(names) < 2 or not values:
            continue
        if name != "refused" and values == {0.0}:
            # None of them is refused by either model: nothing to look at.
            continue
        names.sort(key=lambda key: -(found.value if (found := known[AFTER].get(key) or known[BEFORE].get(key)) else 0))
        left_out = len(names) - _MOST_CATEGORIES
        more = f" {left_out} more, none of them refused more often, are in run.json." if left_out > 0 else ""
        names = names[:_MOST_CATEGORIES]
        shown = told_apart(names, partial(_label, known=known))
        yield Figure(
            name=f"categories-{name.replace('_', '-')}",
            title=f"Refusal by category, {SETS[name]}",
            reading=f"Categories at the top are refused most; wide bars are of few prompts.{more}",
            alt="Dots with intervals from 0 to 100 %, for each category before the edit and after it.",
            spec=dots([dot(shown[key], side, known[side].get(key)) for key in names for side in (BEFORE, AFTER)]),
            table=Table(
                ("category (prompts)", BEFORE, AFTER),
                tuple((shown[key], share(known[BEFORE].get(key)), share(known[AFTER].get(key))) for key in names),
            ),
        )


def _label(key: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    counts = [getattr(found.get(key), "count", None) for found in known.values()]
    count = next((each for each in counts if each is not None), None)
    return f"{shortened(text(key) or '?', 40)}{'' if count is None else f' ({count})'}"


def _verdicts(record: RunRecord) -> Iterator[Table]:
    rows = []
    kinds: list[str] = []
    for name in _sets(record):
        for side, of in _SIDES:
            found = entries(at(getattr(record, of), f"sets.{name}.verdicts"))
            if found:
                kinds += [kind for kind in found if kind not in kinds and whole(found[kind])]
                rows.append((f"{SETS[name]}, {side}", found))
    if not rows or not kinds:
        return
    kinds = kinds[:12]
    yield Table(
        ("answers", *(named(kind).replace("_", " ") for kind in kinds)),
        tuple((label, *(str(whole(found.get(kind)) or 0) for kind in kinds)) for label, found in rows),
        "Verdicts of the judge that decides, numbers of answers. Only “answered” counts as an answer; partial, empty, "
        "looping and off-template ones are kept apart.",
    )
