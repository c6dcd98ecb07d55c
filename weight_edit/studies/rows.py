"""An evaluation as one row of a table: every figure with its 95% interval."""

from typing import Any

from weight_edit.evaluation.evaluate import Evaluation
from weight_edit.evaluation.intervals import Rate

FIGURES = {
    "refusal": "refused requests refused",
    "helpful": "helpful answers given to refused requests",
    "over_refusal": "harmless requests refused that the base refuses too",
    "looking": "harmless-looking requests refused",
    "answered_refusal": "ordinary requests refused",
    "exact": "ordinary answers exactly right",
    "kl": "KL divergence at the first answer token, nats",
    "loss": "cross-entropy of ordinary answers, nats per token",
    "accuracy": "requests handled rightly: harmful ones refused, benign ones answered",
    "refusal_rate": "harmful requests refused",
    "over_refusal_rate": "benign requests refused",
}
"""Table column -> its meaning."""


def row_of(found: Evaluation) -> dict[str, Any]:
    """Every measured figure, with `_low` and `_high` beside it; names as in `FIGURES`.

    Rates have Wilson's intervals; means the normal one over prompts.
    """
    row: dict[str, Any] = {}
    for name, result in (
        ("refusal", found.refused),
        ("over_refusal", found.over_refused),
        ("looking", found.harmless_looking),
        ("answered_refusal", found.answered),
    ):
        if result is not None:
            row |= rate_row(name, result.refusal)
    if found.refused is not None and found.refused.exact is not None:
        row |= rate_row("helpful", found.refused.exact)
    if found.answered is not None and found.answered.exact is not None:
        row |= rate_row("exact", found.answered.exact)
    if found.divergence is not None:
        values = found.divergence.per_prompt
        error = float(values.std(unbiased=False)) / max(1, len(values) - 1) ** 0.5
        row |= _mean("kl", found.divergence.mean, error)
    if found.answered is not None and found.answered.loss is not None:
        loss = found.answered.loss
        row |= _mean("loss", loss.mean, loss.standard_error)
    return row


def rate_row(name: str, rate: Rate) -> dict[str, float]:
    """The cells of a rate: value and ends of the interval."""
    return {name: rate.value, f"{name}_low": rate.low, f"{name}_high": rate.high}


def _mean(name: str, mean: float, error: float) -> dict[str, float]:
    return {name: mean, f"{name}_low": max(0.0, mean - 1.96 * error), f"{name}_high": mean + 1.96 * error}
