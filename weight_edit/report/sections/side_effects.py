"""Side effects: what else changed, in the style of answers, in probabilities and in losses."""

from collections.abc import Iterator
from typing import Any

from weight_edit.evaluation.style import MEANS, RATES
from weight_edit.report.charts import curves, dot, dots, layers, quantitative
from weight_edit.report.figure import Figure, Notes, Section, Table
from weight_edit.report.numbers import NONE, decimal, points, share, small
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.answers import SETS
from weight_edit.report.theme import EDITED, SERIES, SHAPES
from weight_edit.report.values import Estimate, at, entries, estimate, named, number

_GROUPS = ("answered", "harmless_looking", "refused", "over_refused")
_SHORT = {
    "answered": "ordinary requests",
    "harmless_looking": "harmless-looking ones",
    "refused": "refused requests",
    "over_refused": "over-refused ones",
}
CHANCE = "may be chance"


def side_effects(record: RunRecord) -> Section | None:
    """What else changed, on the same prompts."""
    if not record.edited:
        return None
    parts: list[Any] = [*_along(record), *_losses(record), *_style(record), *_lengths(record), *_languages(record)]
    if not parts:
        return None
    lead = Notes(
        (
            "All differences are paired: the same prompts before and after the edit, with 95% intervals. Where the "
            "base refused, another style is the edit at work; on ordinary requests it is a side effect.",
        )
    )
    return Section(name="side-effects", title="Side effects", parts=(lead, *parts))


def _along(record: RunRecord) -> Iterator[Figure]:
    found = at(record.edited, "continuation.per_position")
    values = [number(each) for each in found[:512]] if isinstance(found, list) else []
    known = [(place, value) for place, value in enumerate(values, 1) if value is not None]
    if len(known) < 2:
        return
    data: list[dict[str, Any]] = [
        {"series": "divergence", "x": place, "y": value, "low": None, "high": None} for place, value in known
    ]
    x = layers([row["x"] for row in data], "token of the base's own answer")
    y = quantitative("y", "KL divergence, nats", percent=False)
    y["scale"] = {"zero": True, "nice": True}
    mean = estimate(at(record.edited, "continuation"), "mean")
    said = "" if mean is None else f" The mean is {decimal(mean)} nats per token."
    spec = curves(data, {"divergence": (EDITED, "diamond", [1, 0])}, x, y, height=220, intervals=False)
    # One curve needs no name.
    spec = {**spec, "layer": spec["layer"][:-2], "padding": 5}
    yield Figure(
        name="divergence",
        title="Divergence from the base along its answers to ordinary requests",
        reading=f"A side effect shows as a curve that stays up.{said}",
        alt="A curve of the divergence over the tokens of the answer.",
        spec=spec,
        table=Table(("token", "KL divergence, nats"), tuple((str(place), small(value)) for place, value in known)),
    )


def _losses(record: RunRecord) -> Iterator[Table]:
    rows = []
    for path, words in (
        ("own_answers", "the base's own answers"),
        ("text", "running text"),
    ):
        after = estimate(at(record.edited, path), "mean")
        before = estimate(at(record.edited, f"{path}.base"), "mean")
        if after is not None:
            apart = estimate(at(record.edited, f"{path}.difference"))
            told = at(record.edited, f"{path}.difference.told")
            rows.append((words, decimal(before), decimal(after), _told(decimal(apart, signed=True), apart, told)))
    for group in _GROUPS:
        before, after = (estimate(at(each, f"sets.{group}.loss"), "mean") for each in (record.baseline, record.edited))
        apart = estimate(at(record.edited, f"differences.{group}.loss"))
        if after is not None:
            told = at(record.edited, f"differences.{group}.loss.told")
            said = _told(decimal(apart, signed=True), apart, told)
            rows.append((f"known answers to {_SHORT[group]}", decimal(before), decimal(after), said))
    if rows:
        yield Table(
            ("cross-entropy of", "before", "after", "difference"),
            tuple(rows),
            "Losses, nats per token: how likely the model finds texts. Higher is worse; of known answers to refused "
            "requests, lower means that it would give them.",
        )


def _told(said: str, apart: Estimate | None, told: object) -> str:
    if apart is None:
        return NONE
    return f"{said}, {CHANCE}" if told is False and apart.value else said


def _style(record: RunRecord) -> Iterator[Figure]:
    looks = {_SHORT[group]: (SERIES[i % 4], SHAPES[i % 4]) for i, group in enumerate(_GROUPS)}
    data, table = [], []
    for measure, words in RATES.items():
        for group in _GROUPS:
            place = f"differences.{group}.style.{measure}"
            apart = estimate(at(record.edited, place))
            if apart is None:
                continue
            before, after = (
                share(estimate(at(each, f"sets.{group}.style.{measure}"))) for each in (record.baseline, record.edited)
            )
            said = _told(points(apart), apart, at(record.edited, f"{place}.told"))
            table.append((f"{words}: {_SHORT[group]}", before, after, said))
            data.append(dot(words, _SHORT[group], apart))
    if not data:
        return
    most = max(max(abs(row["low"]), abs(row["high"])) for row in data) or 0.1
    reach = min(1.0, most * 1.05)
    yield Figure(
        name="style",
        title="How the style of answers changed, in shares of answers",
        reading="Right of the dashed line there are more such answers than before. Bars that cross it may be chance.",
        alt="Dots with intervals around a line at 0, for each trait of style and each kind of request.",
        spec=dots(data, looks, title="difference after the edit", domain=[-reach, reach], zero=True),
        table=Table(("trait", "before", "after", "difference"), tuple(table)),
    )


def _lengths(record: RunRecord) -> Iterator[Table]:
    rows = []
    for measure, words in MEANS.items():
        for group in _GROUPS:
            place = f"differences.{group}.style.{measure}"
            apart = estimate(at(record.edited, place))
            before, after = (
                estimate(at(each, f"sets.{group}.style.{measure}")) for each in (record.baseline, record.edited)
            )
            if apart is not None and any(each is not None and each.value for each in (before, after)):
                said = _told(decimal(apart, 1, signed=True), apart, at(record.edited, f"{place}.told"))
                rows.append((f"{words}: {_SHORT[group]}", decimal(before, 1), decimal(after, 1), said))
    if rows:
        yield Table(("answers", "before", "after", "difference"), tuple(rows), "Length and wording of answers, means.")


def _languages(record: RunRecord) -> Iterator[Table | Notes]:
    rows, codes = [], set()
    for group in SETS:
        for side, found in (("before", record.baseline), ("after", record.edited)):
            known = entries(at(found, f"sets.{group}.style.languages"))
            if known:
                codes |= set(known)
                said = [f"{named(code)} {share(estimate(each))}" for code, each in list(known.items())[:6]]
                rows.append((f"{SETS[group]}, {side}", "; ".join(said)))
    if len(codes) == 1:
        yield Notes((f"All answers whose language can be told are in one: {named(next(iter(codes)))}.",))
    elif rows:
        yield Table(("answers", "languages"), tuple(rows), "Languages of the answers.")
