"""Several runs beside one another, and in pairs on the prompts that they share."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from weight_edit.evaluation.comparisons import family
from weight_edit.evaluation.differences import paired_difference
from weight_edit.evaluation.figures import RATES
from weight_edit.report.charts import AFTER, BEFORE, dot, dots, filled, quantitative
from weight_edit.report.figure import Commands, Figure, Folded, Notes, Section, Table
from weight_edit.report.numbers import counted, decimal, share, small
from weight_edit.report.run_record import RunRecord, argument
from weight_edit.report.sections.answers import SETS, Answers, matched, side_by_side
from weight_edit.report.sections.certificates import FAILS, HOLDS, OPEN, Certificate, certificates
from weight_edit.report.sections.limits import limits
from weight_edit.report.sections.top import deed
from weight_edit.report.theme import SERIES, SHAPES
from weight_edit.report.values import Estimate, at, entries, estimate, named, rate, text

Runs = Mapping[str, RunRecord]

_MEASURES = {
    "sets.refused.refusal": "refusal of refused requests",
    "sets.over_refused.refusal": "over-refusal",
    "sets.answered.refusal": "refusal of ordinary requests",
    "sets.answered.exact": "ordinary answers exactly right",
}
_MOST_DIFFERING = 60
_BASE = "the base"
"""The side of the answers that is no run's; no run is named so."""


def named_runs(records: Sequence[RunRecord]) -> dict[str, RunRecord]:
    """The runs by names that tell them apart: of the folder, with a number where two are alike."""
    found: dict[str, RunRecord] = {}
    for record in records:
        name, count = record.name, 2
        while name in found or name == _BASE:
            name, count = f"{record.name} ({count})", count + 1
        found[name] = record
    return found


def overview(runs: Runs) -> Figure | None:
    """The rates of every run's edited model; a run that has none is a line of the table alone."""
    looks = {words: (SERIES[i % 4], SHAPES[i % 4]) for i, words in enumerate(_MEASURES.values())}
    data, table = [], []
    for name, record in runs.items():
        found = {words: rate(at(record.edited, path)) for path, words in _MEASURES.items()}
        data += [dot(name, words, each) for words, each in found.items()]
        table.append(
            (
                name,
                *(share(each) for each in found.values()),
                decimal(estimate(record.edited.get("divergence"), "mean")),
            )
        )
    if not any(data):
        return None
    return Figure(
        name="runs",
        title="The runs after their edits",
        reading="A line for each run; dots are shares of the prompts, bars and brackets 95% intervals. Whether two "
        "runs differ is told by pairs, below.",
        alt="Dots with intervals from 0 to 100 %, for each run the rates of refusal and of right answers.",
        spec=dots(data, looks),
        table=Table(("run", *_MEASURES.values(), "KL at the first token, nats"), tuple(table)),
    )


def introduction(runs: Runs) -> list[str]:
    """What was edited in each run."""
    return [f"{name}: {deed(record)[0]}" for name, record in runs.items()]


def checks(runs: Runs) -> list[Certificate]:
    """What was checked of each run's checkpoint, in a line."""
    found = []
    for name, record in runs.items():
        each = certificates(record)
        states = [one.state for one in each]
        state = FAILS if FAILS in states else HOLDS if each and set(states) == {HOLDS} else OPEN
        words = "; ".join(one.title.lower() if number else one.title for number, one in enumerate(each))
        found.append(Certificate(state, name, f"{words}." if words else "Not verified."))
    return found


def caveats(runs: Runs) -> list[str]:
    """What the comparison does not show: where the runs were not measured alike, and what none of them shows."""
    said = []
    for words, of in (
        ("models", lambda record: record.model),
        ("judges", lambda record: text((record.edited or record.baseline).get("judge")) or "?"),
        ("lengths of answers", lambda record: named((record.edited or record.baseline).get("max_new_tokens"))),
    ):
        values = {name: of(record) for name, record in runs.items()}
        if len(set(values.values())) > 1:
            listed = "; ".join(f"{name}: {value}" for name, value in values.items())
            said.append(f"The runs have different {words}, so that their rates are not of the same thing ({listed}).")
    every = [limits(record) for record in runs.values()]
    shared = [line for line in every[0] if all(line in each for each in every)]
    return [*said, *shared]


def sections(runs: Runs) -> list[Section]:
    """The pictures of each measure, the pairs, and what the recipes differ in."""
    found = [
        Section(name="measures", title="Before and after, run by run", parts=tuple(_measures(runs))),
        Section(name="pairs", title="In pairs, on the same prompts", parts=tuple(_pairs(runs))),
        Section(name="cost", title="What was reached at what cost", parts=tuple(_cost(runs))),
        Section(name="recipes", title="What the recipes differ in", parts=tuple(_recipes(runs))),
    ]
    return [section for section in found if section.parts]


def answers(runs: Runs) -> Answers:
    """The answers of all runs to the prompts that they share, with those of the base where it is one."""
    known = {name: record.answers["edited"] for name, record in runs.items() if record.answers["edited"]}
    first = next(iter(runs.values()))
    if len({record.model for record in runs.values()}) == 1 and first.answers["baseline"]:
        known = {_BASE: first.answers["baseline"], **known}
    return side_by_side(known, _BASE)


def again(runs: Runs) -> Section:
    """The command that makes this page."""
    folders = " ".join(argument(str(record.path)) for record in runs.values())
    command = f"weight-edit report {folders} --out comparison"
    return Section(name="again", title="Do it again", parts=(Commands((command,)),))


def _measures(runs: Runs) -> Iterator[Figure]:
    for figure in RATES:
        data, table = [], []
        for name, record in runs.items():
            sides = {BEFORE: rate(at(record.baseline, figure.path)), AFTER: rate(at(record.edited, figure.path))}
            if any(sides.values()):
                data += [dot(name, side, found) for side, found in sides.items()]
                table.append((name, *(share(found) for found in sides.values())))
        if len(table) > 1:
            yield Figure(
                name=f"measure-{figure.path.split('.', 1)[1].replace('.', '-').replace('_', '-')}",
                title=f"{figure.words[0].upper()}{figure.words[1:]}",
                reading="Before and after the edit of each run.",
                alt="Dots with intervals from 0 to 100 %, two for each run.",
                spec=dots(data),
                table=Table(("run", BEFORE, AFTER), tuple(table)),
            )


def _pairs(runs: Runs) -> Iterator[Figure | Notes]:
    """The paired differences of refusal, each two runs on the prompts that both were asked."""
    known = {name: record.answers["edited"] for name, record in runs.items() if record.answers["edited"]}
    compared = []
    for first, second in combinations(list(known)[:8], 2):
        both = [row for row in matched({first: known[first], second: known[second]}) if len(row) == 2]
        for group in SETS:
            some = [row for row in both if row[first].get("set") == group]
            if some:
                outcomes = ([row[name].get("verdict") == "refused" for row in some] for name in (first, second))
                compared.append((f"{second} against {first}", group, paired_difference(*outcomes).comparison))
    if not compared:
        yield Notes(("The runs have no prompts in common, so that nothing can be compared in pairs.",))
        return
    told = family([each for _, _, each in compared])
    looks = {words: (SERIES[i % 4], SHAPES[i % 4]) for i, words in enumerate(SETS.values())}
    data, table = [], []
    for (pair, group, _), found in zip(compared, told, strict=True):
        data.append(dot(pair, SETS[group], Estimate(found.value, found.low, found.high)))
        ends = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        p = "" if found.corrected is None else small(found.corrected)
        table.append((f"{pair}: {SETS[group]}", str(found.count), f"{100 * found.value:+.1f} {ends}", p, found.verdict))
    reach = min(1.0, 1.05 * max(max(abs(row["low"]), abs(row["high"])) for row in data))
    yield Figure(
        name="paired",
        title="Difference of refusal between runs, on the prompts that both were asked",
        reading="Left of the dashed line the first-named run refuses less. Tango's intervals of paired prompts; the "
        f"table has McNemar's p values, corrected for {counted(len(told), 'comparison')} by Holm's rule.",
        alt="Dots with intervals around a line at 0, for each pair of runs and each kind of request.",
        spec=dots(data, looks, title="difference of the rate", domain=[-reach, reach], zero=True),
        table=Table(("pair, requests", "prompts", "difference, points", "p (Holm)", "in words"), tuple(table)),
    )


def _cost(runs: Runs) -> Iterator[Figure]:
    points = [
        (name, refused, damage)
        for name, record in runs.items()
        if (refused := rate(at(record.edited, "sets.refused.refusal"))) is not None
        and (damage := estimate(record.edited.get("divergence"), "mean")) is not None
    ]
    if len(points) < 2:
        return
    data = [
        {"x": each.value, "y": found.value, "low": found.low, "high": found.high, "label": name}
        for name, found, each in points
    ]
    x = quantitative("x", "divergence at the first token of ordinary answers, nats", percent=False)
    x["scale"] = {"zero": True, "nice": True}
    top = min(1.0, 1.1 * max(found.high or found.value for _, found, _ in points) + 0.02)
    y = quantitative("y", "refused requests refused", percent=True, domain=[0, top])
    yield Figure(
        name="cost",
        title="Refusal that is left against divergence on ordinary requests",
        reading="Lower and further left is better.",
        alt="A point for each run: divergence across, refusal up.",
        spec={
            "data": {"values": data},
            "height": 300,
            "padding": {"left": 5, "top": 24, "bottom": 5, "right": 5},
            "layer": filled(
                [
                    {
                        "data": {"values": [each for each in data if each["low"] is not None]},
                        "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.45, "color": SERIES[0]},
                        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
                    },
                    {
                        "mark": {"type": "point", "filled": True, "size": 90, "color": SERIES[0], "opacity": 1},
                        "encoding": {"x": x, "y": y},
                    },
                    {
                        "mark": {"type": "text", "align": "left", "dx": 9, "limit": 130},
                        "encoding": {"x": x, "y": y, "text": {"field": "label"}},
                    },
                ]
            ),
        },
        table=Table(
            ("run", "refusal", "divergence, nats"),
            tuple((name, share(found), decimal(each)) for name, found, each in points),
        ),
    )


def _recipes(runs: Runs) -> Iterator[Table | Folded]:
    flat = {name: dict(_entries(record.recipe)) for name, record in runs.items()}
    keys = list(dict.fromkeys(key for found in flat.values() for key in found))
    differing = [key for key in keys if len({found.get(key, "") for found in flat.values()}) > 1]
    if differing:
        rows = tuple((key, *(found.get(key, "") for found in flat.values())) for key in differing[:_MOST_DIFFERING])
        yield Table(("entry", *runs), rows, words=True)


def _entries(recipe: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    for key, value in list(entries(recipe).items())[:200]:
        name = f"{prefix}{text(key, 40) or '?'}"
        if isinstance(value, Mapping) and value and depth < 6:
            yield from _entries(value, f"{name}.", depth + 1)
        elif isinstance(value, bool) or value is None:
            yield name, {True: "yes", False: "no", None: "none"}[value]
        else:
            yield name, named(value)
