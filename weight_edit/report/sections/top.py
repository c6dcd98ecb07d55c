"""The first screen: what was edited, what came of it, and what is wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.baking.card.edit_summary import edit_summary, purpose
from weight_edit.evaluation.figures import RATES
from weight_edit.report.charts import AFTER, BEFORE, dot, dots
from weight_edit.report.figure import Figure, Table
from weight_edit.report.numbers import decimal, points, share
from weight_edit.report.run_record import RunRecord
from weight_edit.report.values import Estimate, at, entries, estimate, named, number, rate, rows, text, texts, whole


def headline(record: RunRecord) -> str:
    """The title of the page."""
    if not record.state:
        return f"A search for the best edit of {record.model}"
    return text(record.recipe.get("title")) or f"What was done to {record.model}"


def deed(record: RunRecord) -> list[str]:
    """What was edited and what it is for, in a few sentences."""
    steps, status = _steps(record.recipe), text(record.state.get("status"))
    if not record.state:
        return [
            "Many edits were scored, and the answers under the best of them judged; no checkpoint was written.",
            "The edits change how often the model refuses.",
        ]
    if not steps:
        return [f"{record.model} was measured and looked into; no checkpoint was written."]
    summaries = [edit_summary(step) for step in steps]
    made = bool(record.edited or record.verification or status == "done")
    verb = "with" if made else "which is to have"
    said = [f"{record.model}, {verb} {'; then '.join(summaries)}, {_where(steps)}.{_found(record)}"]
    verified = texts(at(record.verification, "edit.steps"), 20)
    if record.search and verified:
        said = [f"{record.model}, with the edit that a search took: {'; then '.join(verified)}.{_found(record)}"]
    elif any("along 1 direction" not in each for each in verified):
        said.append(f"In full: {'; then '.join(verified)}.")
    said += purpose([{"directions": _concept(record)}])
    if status != "done":
        said.append(
            f"This run is not finished (its status: {status or 'not recorded'}); the page shows what it has so far."
        )
    return said


def _steps(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of the edit, with entries of the types that `edit_summary` reads."""
    edit = entries(recipe.get("edit"))
    found = []
    for step in [edit, *rows(edit.get("then"), 50)] if edit else []:
        strength = number(step.get("strength"))
        found.append(
            {
                "edit": text(step.get("kind"), 60) or "?",
                "strength": 1.0 if strength is None else strength,
                "kernel": bool(step.get("kernel")),
                "layers": text(step.get("layers"), 60) or None,
                "at": step.get("at"),
            }
        )
    return found


def _where(steps: list[dict[str, Any]]) -> str:
    step = steps[0]
    inputs = step["at"]
    if isinstance(inputs, list) and inputs:
        return f"at the input of layer {named(inputs)}"
    return f"in layers {step['layers']}" if step["layers"] else "in every layer"


def _found(record: RunRecord) -> str:
    direction = entries(record.summary.get("direction"))
    method, layer, position = text(direction.get("method")), whole(direction.get("layer")), direction.get("position")
    if method is None:
        return ""
    place = "" if layer is None else f" at the input of layer {layer}"
    token = f", token {position} of the prompt" if whole(position) is not None else ""
    if record.search:
        return f" It set out from the direction that {method} finds{place}{token}."
    return f" The direction was found by {method}{place}{token}."


def _concept(record: RunRecord) -> dict[str, Any]:
    """What `purpose` reads of the directions."""
    direction = entries(record.summary.get("direction"))
    given = entries(record.recipe.get("directions"))
    return {
        "method": text(direction.get("method")) or (None if not given else ""),
        "tokens_from": direction.get("tokens_from"),
        "prompts": {"target": {"name": text(at(record.recipe, "find.target")) or ""}},
        "missed": text(direction.get("missed")),
        "unconfirmed": text(direction.get("unconfirmed")),
    }


def finding(record: RunRecord) -> str:
    """What the measurements say came of the edit; empty where there are none."""
    return text(at(record.summary, "effect.finding"), 1500) or ""


def overview(record: RunRecord) -> Figure | None:
    """Before and after, with intervals."""
    data: list[dict[str, Any]] = []
    lines: list[tuple[str, ...]] = []
    columns: tuple[str, ...]
    beside: dict[str, str] = {}
    for figure in RATES:
        _, name, of = figure.path.split(".")
        before, after = (rate(at(each, figure.path)) for each in (record.baseline, record.edited))
        if before is None and after is None:
            continue
        words = _SHORT.get(figure.path, figure.words)
        label = f"{words} · {_count(before, after)}"
        data += [dot(label, BEFORE, before), dot(label, AFTER, after)]
        apart = estimate(at(record.edited, f"differences.{name}.{of}"))
        told = at(record.edited, f"differences.{name}.{of}.told")
        mark = f" {_UNTOLD}" if told is False and apart is not None and apart.value else ""
        beside[label] = _beside(before, after) + mark
        said = "not compared" if apart is None else points(apart).removesuffix(" points") + mark
        lines.append((words, _count(before, after), share(before), share(after), said))
    lines += _divergences(record)
    if not lines:
        return None
    columns = ("measure", "prompts", "before", "after", "difference, points")
    if not record.edited:
        columns, lines = ("measure", "prompts", "rate"), [line[:3] for line in lines]
    marked = ""
    if any(line[-1].endswith(_UNTOLD) for line in lines):
        marked = f" Where a difference is marked {_UNTOLD}, the paired test cannot tell it from none."
    return Figure(
        name="before-and-after",
        title="Before and after the edit" if record.edited else "The model as it is",
        reading=f"Dots are shares of the prompts, bars and brackets 95% intervals.{marked}",
        alt="Dots with intervals on an axis from 0 to 100 %, two for each measure: before the edit and after it.",
        spec=dots(data, beside=beside, width=_WIDE),
        # As a phone has room for them, names have several lines.
        narrow=dots(data, beside=beside, line=50, width=20),
        table=Table(columns, tuple(lines)),
    )


def _count(*found: Estimate | None) -> str:
    counts = [each.count for each in found if each is not None and each.count is not None]
    return str(counts[0]) if counts else "?"


def _beside(before: Estimate | None, after: Estimate | None) -> str:
    """The rates of a line, as they stand at its end: "100.0 → 0.0 %"."""
    return f"{' → '.join(f'{100 * each.value:.1f}' for each in (before, after) if each is not None)} %"


def costs(record: RunRecord) -> str:
    """Divergence and loss in a line; empty where they were not measured."""
    said = [f"{words}: {after}" for words, _, _, after, _ in _divergences(record)]
    loss = estimate(at(record.edited, "differences.answered.loss"))
    if loss is not None:
        told = at(record.edited, "differences.answered.loss.told")
        chance = " (may be chance)" if told is False and round(loss.value, 4) else ""
        said.append(f"loss of known ordinary answers, nats per token: {decimal(loss, signed=True)}{chance}")
    return f"{'; '.join(said)}." if said else ""


_UNTOLD = "(?)"
"""What stands behind a difference that may be chance."""

_WIDE = 60
"""The characters of a label of the first screen, which has one line for it."""

_SHORT = {
    "sets.refused.exact": "helpful answers to refused requests",
    "sets.over_refused.refusal": "over-refusal: harmless, yet refused",
}
"""Words for the first screen, where those of tables are too long."""


def _divergences(record: RunRecord) -> Iterator[tuple[str, str, str, str, str]]:
    """The rows of what compares the two models' distributions."""
    first, along = at(record.edited, "divergence"), at(record.edited, "continuation")
    for found, prompts, words in (
        (first, at(first, "agreement.total"), "KL at the first token, nats"),
        (along, at(along, "counts.0"), f"KL over {named(at(along, 'tokens'))} tokens, nats per token"),
    ):
        mean = estimate(found, "mean")
        if mean is not None:
            count = whole(prompts)
            yield words, "" if count is None else str(count), "0", decimal(mean), ""


def problems(record: RunRecord) -> list[str]:
    """What a verification found wrong."""
    return texts(record.verification.get("problems"), 10)
