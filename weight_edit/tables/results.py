"""The tables of each kind of result, made of its document: what `to_dict` gives, or an entry of `run.json`."""

from collections.abc import Callable, Mapping
from typing import Any

from weight_edit.tables import models, written
from weight_edit.tables.rows import MOST, entries_of, is_plain, left_out, named_rows, plain_values, section_of
from weight_edit.tables.table import Cell, Estimate, Table, estimate_of

Document = Mapping[str, Any]

_SETS = {
    "refused": ("refused requests", "answered right"),
    "answered": ("ordinary requests", "answered right"),
    "over_refused": ("harmless requests that the base refuses", "answered right"),
    "harmless_looking": ("harmless-looking requests", "answered right"),
}
"""Prompt set -> its words, and those of the rate at which its answers are the known ones."""


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
            figure = estimate_of(found.get(key))
            if figure is None:
                continue
            row: list[Cell] = [words, said]
            if base is not None:
                difference = estimate_of((apart.get(name) or {}).get(key), signed=True)
                row += [estimate_of((before.get(name) or {}).get(key)), figure, difference]
            else:
                row += [figure]
            # The right answers are a share of those prompts whose answer is known, not of all.
            rows.append((*row, found[key].get("total", found.get("count"))))
    columns = ("prompts", "rate", *(("base", "edited", "difference") if base is not None else ("model",)), "number")
    how = [f"at most {edited['max_new_tokens']} tokens"] if edited.get("max_new_tokens") else []
    how += [f"judged by {edited['judge']}"] if edited.get("judge") else []
    rates = Table(
        title="Rates, with 95% intervals", columns=columns, rows=tuple(rows), scale=(0, 1), note="; ".join(how)
    )
    notes = [("the base", note) for note in (base or {}).get("notes") or ()]
    notes += [("the edited model" if base is not None else "the model", note) for note in edited.get("notes") or ()]
    return [rates, _moved(edited), named_rows("What to know of these rates", notes)]


def _moved(edited: Document) -> Table:
    rows: list[tuple[Cell, ...]] = []
    losses = [edited[key] for key in ("own_answers", "text") if isinstance(edited.get(key), Mapping)]
    beside = any(each.get("base") for each in losses)
    for key, said in (
        ("divergence", "KL divergence of the first token, nats"),
        ("continuation", "KL divergence over the base's answers, nats per token"),
        ("own_answers", "cross-entropy of the base's answers, nats per token"),
        ("text", "cross-entropy of texts, nats per token"),
    ):
        figure = estimate_of(edited.get(key))
        if figure is None:
            continue
        # A cross-entropy says how far it moved only beside the base's own.
        found = edited[key]
        apart = (estimate_of(found.get("base")), figure, estimate_of(found.get("difference"), signed=True))
        rows.append((said, *apart) if beside else (said, figure))
    columns = ("figure", "base", "edited", "difference") if beside else ("figure", "mean")
    title = "How far it moved from the base" if beside or edited.get("divergence") else "Loss"
    return Table(title=title, columns=columns, rows=tuple(rows))


def _evaluation(document: Document) -> list[Table]:
    base = document.get("base")
    return measured(base if isinstance(base, Mapping) else None, document)


def _run(document: Document) -> list[Table]:
    tables: list[Table] = []
    found = document.get("directions") or {"main": document.get("direction")}
    for name, direction in found.items():
        if isinstance(direction, Mapping):
            tables += _directions(direction, "The direction" if len(found) == 1 else f"The direction {name}")
    if isinstance(document.get("search"), Mapping):
        tables += _search(document["search"])
    edited = document.get("edited")
    if isinstance(edited, Mapping) and edited and isinstance(document.get("baseline"), Mapping):
        tables += measured(document["baseline"], edited)
    effect = document.get("effect")
    if isinstance(effect, Mapping):
        tables.append(named_rows("Effect", [(effect["verdict"], effect["finding"])]))
    elif document.get("model") and not edited:
        tables.append(named_rows("Effect", [("not measured", "the recipe names no prompts to evaluate")]))
    if isinstance(document.get("verification"), Mapping):
        tables += written.verification(document["verification"])
    geometry = document.get("geometry")
    if isinstance(geometry, Mapping) and geometry.get("before") is not None:
        areas = tuple((name, estimate_of(geometry[key])) for name, key in (("base", "before"), ("edited", "after")))
        title = "Refused and answered prompts told apart where the direction was found (area under the ROC curve)"
        tables.append(Table(title=title, columns=("model", "area"), rows=areas, scale=(0, 1)))
    places = [(key, document[key]) for key in ("model", "report", "path") if document.get(key)]
    places += [(f"study: {each['title']}", each["folder"]) for each in document.get("studies") or ()]
    return [*tables, named_rows("Where it lies", places)]


_SCORES = {
    "bypass": "refusal metric of target prompts, ablated",
    "induce": "refusal metric of baseline prompts, added",
    "kl": "KL divergence of the first token of baseline prompts, nats",
    "accuracy": "accuracy on validation prompts",
    "cosmic": "cosmic score",
    "protected_kl": "KL divergence of protected prompts, nats",
}
"""A score of a candidate -> its words."""


def _directions(document: Document, title: str = "The direction") -> list[Table]:
    names = ("method", "layer", "position", "candidates", "kept_bounds", "missed", "unconfirmed")
    found = [(name.replace("_", " "), document[name]) for name in names if is_plain(document.get(name))]
    scores = [each for each in entries_of(document, "scores") if isinstance(each, Mapping)]
    if scores:
        kept = sum(each.get("rejected") is None for each in scores)
        found.append(("candidates", f"{len(scores)}, of which {kept} keep the bounds"))
    separation = document.get("separation")
    if isinstance(separation, Mapping):
        words = {"auc": "separation (AUC)", "relative_norm": "length, share of the stream's"}
        found += [(said, separation[key]) for key, said in words.items() if is_plain(separation.get(key))]
    warnings = [("warning", each) for each in entries_of(document, "warnings")]
    return [named_rows(title, [*found, *warnings]), _scored(document, scores)]


def _scored(document: Document, scores: list[Document]) -> Table:
    """The scores that it was chosen by, beside those of a random direction.

    A directions file may be a stranger's, whose metadata say anything.
    """
    place = document.get("layer"), document.get("position")
    chosen = next((each for each in scores if (each.get("layer"), each.get("position")) == place), document)
    intervals, control = section_of(chosen, "intervals"), section_of(document, "control")
    rows: list[tuple[Cell, ...]] = []
    for key, said in _SCORES.items():
        value = estimate_of(chosen.get(key))
        if value is None:
            continue
        low, high = map(estimate_of, [*entries_of(intervals, key), None, None][:2])
        figure = value if low is None or high is None else Estimate(value.value, low.value, high.value)
        rows.append((said, figure, estimate_of(control.get(key))))
    columns = ("score", "this direction", "a random one")
    said_of = [each for each in entries_of(document, "refusal_tokens") if isinstance(each, Mapping)]
    tokens = ", ".join(repr(each["text"]) for each in said_of if is_plain(each.get("text")))
    note = f"The refusal metric is the log-odds of the tokens {tokens}; above 0 the model refuses." if tokens else ""
    title = "Its scores on validation prompts, with 95% intervals where they are known"
    return Table(title=title, columns=columns, rows=tuple(rows), note=note if rows else "")


def _search(document: Document) -> list[Table]:
    """The front; a run's summary has the same points in other words."""
    picked = document.get("picked")
    chosen = picked.get("point", {}).get("digest") if isinstance(picked, Mapping) else picked
    reason = picked.get("reason") if isinstance(picked, Mapping) else document.get("reason")
    rows: list[tuple[Cell, ...]] = []
    for point in document.get("front", ()):
        sets = point.get("judged", {}).get("sets", {})
        refused = sets.get("refused", {}).get("refusal", point.get("refusal")) or {}
        over = _longest(sets.get("over_refused", {}).get("refusal", {})) or point.get("over_refusal")
        damage = point.get("cheap", {}).get("validation", {}).get("damage") if sets else point.get("damage")
        mark = "picked" if point.get("digest") == chosen else ""
        rate = _longest(refused)
        many = None if rate is None else rate.get("total")
        rows.append((point.get("digest"), estimate_of(rate), many, estimate_of(over), estimate_of(damage), mark))
    columns: tuple[str, ...] = (
        "point",
        "refused requests refused",
        "number",
        "harmless requests refused",
        "KL, nats per token",
        "",
    )
    if not any(row[3] for row in rows):
        columns, rows = (*columns[:3], *columns[4:]), [(*row[:3], *row[4:]) for row in rows]
    tau = document.get("tau")
    note = str(tau["sentence"]) if isinstance(tau, Mapping) and tau.get("sentence") else ""
    front = Table(title="The front: judged rates against damage", columns=columns, rows=tuple(rows), note=note)
    said = [("picked because", reason)] if reason else []
    return [front, named_rows("", [*said, *(("warning", each) for each in document.get("warnings") or ())])]


def _longest(by_length: Document) -> Document | None:
    """What was judged of the longest answers."""
    return by_length[max(by_length, key=int)] if by_length else None


def _judged(document: Document) -> list[Table]:
    rows: list[tuple[Cell, ...]] = [
        (judge, verdict.replace("_", " "), estimate_of(rate), f"{rate['count']} of {rate['total']}")
        for judge, found in document.get("judges", {}).items()
        for verdict, rate in found["verdicts"].items()
        if isinstance(rate, Mapping) and rate.get("count")
    ]
    columns = ("judge", "verdict", "rate", "answers")
    rates = Table(title=f"{document.get('count')} answers", columns=columns, rows=tuple(rows), scale=(0, 1))
    kappas = [(f"{each['first']} and {each['second']}", _kappa(each)) for each in document.get("agreements", ())]
    labels: list[tuple[Cell, ...]] = [
        (
            judge,
            estimate_of(found["refusal"]["accuracy"]),
            _kappa(found["refusal"]),
            estimate_of(found["lean"], signed=True),
        )
        for judge, found in (document.get("labels") or {}).items()
    ]
    return [
        rates,
        Table(title="Agreement (kappa)", columns=("judges", "kappa"), rows=tuple(kappas)),
        Table(
            title=f"Refused or not, against the labels of {document.get('labelled')} answers",
            columns=("judge", "same as the label", "kappa", "rate of refusals, judge minus labels"),
            rows=tuple(labels),
        ),
        named_rows("", [("note", note) for note in document.get("notes") or ()]),
    ]


def _kappa(document: Document) -> Cell:
    return estimate_of(document.get("kappa")) or "not defined: all are of one kind"


def _difference(document: Document) -> list[Table]:
    names = {"a": "A", "b": "B", "equal": "equal in tensors and files", "tensors_equal": "tensors equal"}
    found: list[tuple[str, Any]] = [(said, document[key]) for key, said in names.items() if is_plain(document.get(key))]
    changed = sorted(document.get("tensors_different", ()), key=lambda each: -(each.get("relative") or 0))
    found.append(("tensors different", len(changed)))
    shapes = [each["name"] for each in document.get("tensors_reshaped", ())]
    others = {"tensors of another shape": shapes, "tensors in A alone": document.get("tensors_only_a")}
    others["tensors in B alone"] = document.get("tensors_only_b")
    files = document.get("files") or {}
    for key, said in (("different", "files different"), ("only_a", "files in A alone"), ("only_b", "files in B alone")):
        others[said] = files.get(key)
    found += plain_values({said: listing for said, listing in others.items() if listing})
    words = {
        "explained": "share of the differences that the shared directions explain",
        "strength": "median strength of the ablation that they are",
    }
    found += [(said, document[key]) for key, said in words.items() if is_plain(document.get(key))]
    verdict = document.get("verdict")
    if isinstance(verdict, Mapping):
        made = " and ".join(verdict["made_with"])
        found.append(("made with", f"{made} ({verdict['confidence']})"))
        found += [("because", each) for each in verdict["evidence"]]
    found += [("note", note) for note in document.get("notes") or ()]
    rows = tuple((each["name"], estimate_of(each.get("relative")), each.get("rank")) for each in changed[:MOST])
    table = Table(
        title="Tensors that differ most",
        columns=("tensor", "relative change", "rank"),
        rows=rows,
        note=left_out(changed),
    )
    return [named_rows("Two checkpoints", found), table]


def _plain_values(document: Document) -> list[Table]:
    return [named_rows("", plain_values(document))]


_KINDS: dict[str, Callable[[Document], list[Table]]] = {
    "Evaluation": _evaluation,
    "RunResult": _run,
    "Verification": written.verification,
    "Inspection": models.inspection,
    "CostPlan": models.cost_plan,
    "BakeResult": written.bake,
    "PackResult": written.pack,
    "ApplyResult": written.apply,
    "UndoResult": written.undo,
    "PushResult": written.push,
    "Directions": _directions,
    "SearchResult": _search,
    "JudgedAnswers": _judged,
    "Difference": _difference,
}
"""Name of a result's class -> what makes its tables."""
