"""The judges of the answers: whether they agree, and what each of them counts."""

from collections.abc import Iterator
from typing import Any

from weight_edit.evaluation.four_classes import CLASSES
from weight_edit.report.charts import AFTER, BEFORE, dot, dots
from weight_edit.report.figure import Figure, Section, Table
from weight_edit.report.numbers import NONE, decimal, share
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.answers import SETS
from weight_edit.report.values import at, entries, estimate, named, rate, shortened, text, told_apart, whole

_SIDES = ((BEFORE, "baseline"), (AFTER, "edited"))


def judges(record: RunRecord) -> Section | None:
    """Of a run whose answers several judges read; None of others."""
    names = list(dict.fromkeys([*entries(record.baseline.get("judges")), *entries(record.edited.get("judges"))]))[:8]
    parts: list[Any] = [*_rates(record, names), *_agreements(record), *_protocol(record)]
    return Section(name="judges", title="Judges and protocols", parts=tuple(parts)) if parts else None


def _rates(record: RunRecord, names: list[str]) -> Iterator[Figure]:
    if len(names) < 2:
        return
    shown = told_apart(names, lambda judge: shortened(text(judge) or "?", 40))
    data, table = [], []
    for group in SETS:
        for judge in names:
            label = f"{SETS[group]}, by {shown[judge]}"
            found = {
                side: rate(at(entries(at(getattr(record, of), f"sets.{group}.judges")).get(judge), "refusal"))
                for side, of in _SIDES
            }
            if any(found.values()):
                data += [dot(label, side, each) for side, each in found.items()]
                table.append((label, *(share(each) for each in found.values())))
    if data:
        yield Figure(
            name="by-judge",
            title="Refusal as each judge counts it",
            reading="Where judges differ by more than the bars, the figure depends on who counts.",
            alt="Dots with intervals from 0 to 100 %, for each judge and set before and after the edit.",
            spec=dots(data),
            table=Table(("answers, judge", BEFORE, AFTER), tuple(table)),
        )


def _agreements(record: RunRecord) -> Iterator[Table]:
    rows = []
    for side, of in _SIDES:
        decides = text(getattr(record, of).get("judge"), 40) or "?"
        for other, found in list(entries(getattr(record, of).get("agreements")).items())[:8]:
            kappa, same = estimate(at(found, "refusal.kappa")), rate(at(found, "refusal.agreement"))
            rows.append(
                (
                    f"{decides} and {text(other, 40) or '?'}, {side}",
                    NONE if same is None else share(same),
                    "both say one kind alone" if kappa is None else decimal(kappa, 2),
                )
            )
    if rows:
        yield Table(
            ("judges", "the same on", "Cohen's kappa"),
            tuple(rows),
            "Whether two judges say of the same answers that they are refusals. A kappa of 0 is "
            "what chance gives, 1 full agreement.",
        )


def _protocol(record: RunRecord) -> Iterator[Table]:
    """The rates of the four classes' protocol, where the run could draw them."""
    sides = {side: entries(getattr(record, of).get("four_classes")) for side, of in _SIDES}
    known = {side: found for side, found in sides.items() if found}
    names = {"accuracy": "handled rightly", "refusal_rate": "harmful refused", "over_refusal_rate": "benign refused"}
    rows = []
    for key, words in names.items():
        said = [(side, rate(found.get(key))) for side, found in known.items()]
        rows += [(f"{words}, {side}", share(each)) for side, each in said if each is not None]
    if rows:
        some = next(iter(known.values()))
        paper, of_each = text(some.get("paper"), 20), whole(some.get("of_each"))
        yield Table(
            ("rate", "value"),
            tuple(rows),
            f"By the protocol of arXiv {paper or '?'}, which takes {named(of_each)} requests of each of four classes, "
            f"by what the base did with them{_sizes(some)}. Each class has the same weight, so that these are no rates "
            "of the sets above.",
        )


def _sizes(found: dict[str, Any]) -> str:
    """How many requests there are of the classes that have fewer than the protocol asks for, to stand in a sentence."""
    missing = [(words, whole(at(found, f"missing.{name}"))) for name, words in CLASSES.items()]
    few = ", ".join(f"{count} {words}" for words, count in missing if count is not None)
    return f"; here are only {few}" if few else ""
