"""The tables of each kind of result, made of its document: what `to_dict` gives, or an entry of `run.json`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weight_edit.tables.table import Cell, Figure, Table, figure_of

Document = Mapping[str, Any]

_SETS = {
    "refused": ("refused requests", "answered right"),
    "answered": ("ordinary requests", "answered right"),
    "over_refused": ("harmless requests that the base refuses", "answered right"),
    "harmless_looking": ("harmless-looking requests", "answered right"),
}
"""Prompt set -> its words, and those of the rate at which its answers are the known ones."""

_MOST = 12
"""Rows of a long list."""

_LONGEST = 200
"""Characters of a text."""


def tables_of(kind: str, document: Document) -> list[Table]:
    """The tables of a result.

    Args:
        kind: the name of its class; of one that has no tables of its own, its plain values are shown.
        document: its JSON values.
    """
    return [table for table in _KINDS.get(kind, _plain_values)(document) if table.rows]


def measured(base: Document | None, edited: Document) -> list[Table]:
    """What was measured of a model: a row for each rate, with the base's beside it where there is one."""
    before = {} if base is None else base.get("sets", {})
    apart = edited.get("differences", {})
    rows: list[tuple[Cell, ...]] = []
    for name, found in edited.get("sets", {}).items():
        words, right = _SETS.get(name, (name, "answered right"))
        for key, said in (("refusal", "refused"), ("exact", right)):
            figure = figure_of(found.get(key))
            if figure is None:
                continue
            row: list[Cell] = [words, said]
            if base is not None:
                difference = figure_of((apart.get(name) or {}).get(key), signed=True)
                row += [figure_of((before.get(name) or {}).get(key)), figure, difference]
            else:
                row += [figure]
            rows.append((*row, found.get("count")))
    columns = ("prompts", "rate", *(("base", "edited", "difference") if base is not None else ("model",)), "number")
    notes = [f"at most {edited['max_new_tokens']} tokens"] if edited.get("max_new_tokens") else []
    notes += [f"judged by {edited['judge']}"] if edited.get("judge") else []
    rates = Table(
        title="Rates, with 95% intervals", columns=columns, rows=tuple(rows), scale=(0, 1), note="; ".join(notes)
    )
    return [rates, _moved(edited)]


def _moved(edited: Document) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for key, said in (
        ("divergence", "KL divergence of the first token, nats"),
        ("continuation", "KL divergence over the base's answers, nats per token"),
        ("own_answers", "cross-entropy of the base's answers, nats per token"),
        ("text", "cross-entropy of texts, nats per token"),
    ):
        figure = figure_of(edited.get(key))
        if figure is not None:
            rows.append((said, figure))
    return Table(title="How far it moved from the base", columns=("figure", "mean"), rows=tuple(rows))


def _evaluation(document: Document) -> list[Table]:
    base = document.get("base")
    return measured(base if isinstance(base, Mapping) else None, document)


def _run(document: Document) -> list[Table]:
    tables: list[Table] = []
    if isinstance(document.get("direction"), Mapping):
        tables += _directions(document["direction"])
    if isinstance(document.get("edited"), Mapping) and isinstance(document.get("baseline"), Mapping):
        tables += measured(document["baseline"], document["edited"])
    if isinstance(document.get("verification"), Mapping):
        tables += _verification(document["verification"])
    geometry = document.get("geometry")
    if isinstance(geometry, Mapping) and geometry.get("before") is not None:
        areas = tuple((name, figure_of(geometry[key])) for name, key in (("base", "before"), ("edited", "after")))
        title = "Refused and answered prompts told apart where the direction was found (area under the ROC curve)"
        tables.append(Table(title=title, columns=("model", "area"), rows=areas, scale=(0, 1)))
    places = [(key, document[key]) for key in ("model", "report", "path") if document.get(key)]
    return [*tables, _rows("Where it lies", places)]


def _verification(document: Document) -> list[Table]:
    words = {
        "passed": "passed",
        "integrity": "only what was to be edited has changed",
        "complete": "nothing is left of the direction",
        "leak": "left in the stream, share of its length",
        "left_in_weights": "left in weights, share",
        "logit_difference": "largest difference of logits between hooks and weights",
    }
    found = [(said, document[key]) for key, said in words.items() if document.get(key) is not None]
    problems = [("problem", problem) for problem in document.get("problems", ())]
    return [_rows("Checks of the edited checkpoint", [*found, *problems])]


def _directions(document: Document) -> list[Table]:
    names = ("method", "layer", "position", "bypass", "induce", "kl", "candidates", "kept_bounds")
    found = [(name.replace("_", " "), document[name]) for name in names if _is_plain(document.get(name))]
    separation = document.get("separation")
    if isinstance(separation, Mapping):
        words = {"auc": "separation (AUC)", "relative_norm": "length, share of the stream's"}
        found += [(said, separation[key]) for key, said in words.items() if _is_plain(separation.get(key))]
    warnings = [("warning", each) for each in document.get("warnings", ())]
    return [_rows("The direction", [*found, *warnings])]


def _search(document: Document) -> list[Table]:
    """The front; a run's summary has the same points in other words."""
    picked = document.get("picked")
    chosen = picked.get("point", {}).get("digest") if isinstance(picked, Mapping) else picked
    rows: list[tuple[Cell, ...]] = []
    for point in document.get("front", ()):
        sets = point.get("judged", {}).get("sets", {})
        refused, over = (sets.get(name, {}).get("refusal", {}) for name in ("refused", "over_refused"))
        damage = point.get("cheap", {}).get("validation", {}).get("damage")
        mark = "picked" if point.get("digest") == chosen else ""
        rows.append((point.get("digest"), _longest(refused), _longest(over), figure_of(damage), mark))
    columns = ("point", "refused requests refused", "harmless requests refused", "KL, nats per token", "")
    tau = document.get("tau")
    note = str(tau["sentence"]) if isinstance(tau, Mapping) and tau.get("sentence") else ""
    return [Table(title="The front: judged rates against damage", columns=columns, rows=tuple(rows), note=note)]


def _longest(by_length: Document) -> Figure | None:
    return figure_of(by_length[max(by_length, key=int)]) if by_length else None


def _judged(document: Document) -> list[Table]:
    rows = [
        (judge, verdict.replace("_", " "), figure_of(rate), rate.get("count"))
        for judge, found in document.get("judges", {}).items()
        for verdict, rate in found["verdicts"].items()
        if isinstance(rate, Mapping) and rate.get("count")
    ]
    columns = ("judge", "verdict", "rate", "answers")
    rates = Table(title=f"{document.get('count')} answers", columns=columns, rows=tuple(rows), scale=(0, 1))
    kappas = [
        (f"{each['first']} and {each['second']}", figure_of(each.get("kappa")) or figure_of(each))
        for each in document.get("agreements", ())
    ]
    return [rates, Table(title="Agreement (kappa)", columns=("judges", "kappa"), rows=tuple(kappas))]


def _difference(document: Document) -> list[Table]:
    names = ("a", "b", "equal", "tensors_equal", "explained", "strength")
    found = [(name.replace("_", " "), document[name]) for name in names if _is_plain(document.get(name))]
    changed = sorted(document.get("tensors_different", ()), key=lambda each: -(each.get("relative") or 0))
    rows = tuple((each["name"], figure_of(each.get("relative")), each.get("rank")) for each in changed[:_MOST])
    more = f"and {len(changed) - _MOST} more" if len(changed) > _MOST else ""
    table = Table(title="Tensors that differ most", columns=("tensor", "relative change", "rank"), rows=rows, note=more)
    return [_rows("Two checkpoints", [*found, ("tensors different", len(changed))]), table]


def _plain_values(document: Document) -> list[Table]:
    """What is a number, a word or a rate at the top of a document, and how many of each list there are."""
    found: list[tuple[str, Any]] = []
    for key, value in document.items():
        if _is_plain(value) or figure_of(value) is not None:
            found.append((key.replace("_", " "), value))
        elif isinstance(value, Sequence | Mapping) and not isinstance(value, str) and value:
            found.append((key.replace("_", " "), f"{len(value)}"))
    return [_rows("", found)]


def _rows(title: str, found: Sequence[tuple[str, Any]]) -> Table:
    return Table(title=title, columns=("", ""), rows=tuple((name, _cell(value)) for name, value in found))


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float)


def _cell(value: object) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return value
    figure = figure_of(value)
    if figure is not None:
        return figure
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


_KINDS: dict[str, Callable[[Document], list[Table]]] = {
    "Evaluation": _evaluation,
    "RunResult": _run,
    "Verification": _verification,
    "Directions": _directions,
    "SearchResult": _search,
    "JudgedAnswers": _judged,
    "Difference": _difference,
}
"""Name of a result's class -> what makes its tables."""
