"""An evaluation as one row of a table: every figure with its 95% interval."""

from collections.abc import Sequence
from typing import Any

from weight_edit.evaluation.comparisons import UNTOLD
from weight_edit.evaluation.continuation import ContinuationDivergence
from weight_edit.evaluation.differences import differences
from weight_edit.evaluation.divergence import Divergence
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.loss import Loss
from weight_edit.evaluation.results import Evaluation
from weight_edit.evaluation.significance import LEVEL, holm

FIGURES = {
    "refusal": "refused requests refused",
    "helpful": "helpful answers given to refused requests",
    "over_refusal": "harmless requests refused that the base refuses too",
    "looking": "harmless-looking requests refused",
    "answered_refusal": "ordinary requests refused",
    "exact": "ordinary answers exactly right",
    "kl": "KL divergence at the first answer token, nats",
    "kl_answer": "KL divergence over the base's own answers, nats per token",
    "loss": "cross-entropy of ordinary answers, nats per token",
    "own_loss": "cross-entropy of the base's own answers, nats per token",
    "text_loss": "cross-entropy of the texts, nats per token",
    "accuracy": "requests handled rightly: harmful ones refused, benign ones answered",
    "refusal_rate": "harmful requests refused",
    "over_refusal_rate": "benign requests refused",
}
"""Table column -> its meaning."""


def row_of(found: Evaluation) -> dict[str, Any]:
    """Every measured figure, with `_low` and `_high` beside it; names as in `FIGURES`.

    Rates have Wilson's intervals, means those of the studentised bootstrap over prompts (`means`).
    """
    row: dict[str, Any] = {}
    for name, of in _REFUSALS.items():
        if of in found.sets:
            row |= rate_row(name, found.sets[of].refusal)
    if found.refused is not None and found.refused.exact is not None:
        row |= rate_row("helpful", found.refused.exact)
    if found.answered is not None and found.answered.exact is not None:
        row |= rate_row("exact", found.answered.exact)
    means: dict[str, Divergence | ContinuationDivergence | Loss | None] = {
        "kl": found.divergence,
        "kl_answer": found.continuation,
        "loss": None if found.answered is None else found.answered.loss,
        "own_loss": None if found.own_answers is None else found.own_answers.loss,
        "text_loss": None if found.text is None else found.text.read.loss,
    }
    for name, mean in means.items():
        if mean is not None:
            row |= _mean_row(name, mean.mean, mean.interval)
    return row


_REFUSALS = {
    "refusal": "refused",
    "over_refusal": "over_refused",
    "looking": "harmless_looking",
    "answered_refusal": "answered",
}
"""Table column -> the prompt set of that refusal rate."""


def p_values(base: Evaluation, edited: Evaluation) -> dict[str, float]:
    """McNemar's p value of each refusal rate against the base's on the same prompts, as "refusal_p" and so on."""
    found = differences(base.answers, edited.answers)
    return {f"{name}_p": found[of]["refusal"].p for name, of in _REFUSALS.items() if of in found}


def corrected(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of many edits of one base with p values corrected for their number, and what can be told in words.

    Args:
        rows: the first is the base's; rows without figures stay as they are.

    Returns:
        The rows with "refusal_p_holm" beside each "refusal_p", and "refusal_against_base": lower, higher, or that no
        difference can be told.
    """
    told = [dict(row) for row in rows]
    for name in _REFUSALS:
        tested = [row for row in told if f"{name}_p" in row]
        for row, p in zip(tested, holm([row[f"{name}_p"] for row in tested]), strict=True):
            row[f"{name}_p_holm"] = p
            if name == "refusal":
                moved = "higher" if row[name] > told[0][name] else "lower"
                row["refusal_against_base"] = moved if p <= LEVEL else UNTOLD
    return told


def rate_row(name: str, rate: Rate) -> dict[str, float]:
    """The cells of a rate: value and ends of the interval."""
    return {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}


def _mean_row(name: str, mean: float, interval: tuple[float, float] | None) -> dict[str, float]:
    # Of fewer than three prompts nobody knows how far off the mean is.
    return {name: mean, **({} if interval is None else {f"{name}_low": interval[0], f"{name}_high": interval[1]})}
