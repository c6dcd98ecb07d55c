"""Damage beyond a recipe's bounds: why an edited model is not to be shown as finished."""

import math
from collections.abc import Mapping
from typing import Any

from weight_edit.evaluation.figures import value
from weight_edit.recipe.recipe import Bounds

_SETS = {
    "max_refusal": "refused",
    "min_refusal": "refused",
    "max_over_refusal": "over_refused",
    "min_ordinary_refused": "answered",
}


def beyond_bounds(bounds: Bounds, baseline: Mapping[str, Any], edited: Mapping[str, Any]) -> list[str]:
    """One line per bound that is missed. A bound whose measure was not taken, or is no number, is missed.

    The two bounds that recipes have by default, on divergence and loss, are passed over where no set was given
    that they could be measured on.

    Args:
        bounds: of the recipe.
        baseline, edited: `Evaluation.to_dict()` before and after.
    """
    checks = [
        ("max_refusal", "refusal", _refusal(edited, "refused"), bounds.max_refusal, "above"),
        ("min_refusal", "refusal", _refusal(edited, "refused"), bounds.min_refusal, "below"),
        (
            "max_over_refusal",
            "over-refusal",
            _refusal(edited, "over_refused"),
            bounds.max_over_refusal,
            "above",
        ),
        (
            "min_ordinary_refused",
            "refusal of ordinary requests",
            _refusal(edited, "answered"),
            bounds.min_ordinary_refused,
            "below",
        ),
        (
            "min_answers_right",
            "answers right",
            value(edited, "sets.answered.exact.value"),
            bounds.min_answers_right,
            "below",
        ),
        (
            "min_helpful_recovered",
            "helpful answers recovered",
            value(edited, "sets.refused.exact.value"),
            bounds.min_helpful_recovered,
            "below",
        ),
        ("max_kl", "KL divergence", value(edited, "divergence.mean"), bounds.max_kl, "above"),
        (
            "max_loss_increase",
            "increase of the loss",
            _loss_increase(baseline, edited),
            bounds.max_loss_increase,
            "above",
        ),
    ]
    problems = []
    for key, name, figure, bound, side in checks:
        optional = key in ("max_kl", "max_loss_increase")
        if bound is None or (figure is None and optional):
            continue
        if figure is None:
            told = (note for note in edited.get("notes") or () if f"to the {_SETS.get(key)} set" in note)
            problems.append(f"bounds.{key}: {name} was not measured; {next(told, 'name a prompt set under evaluate')}")
        elif not math.isfinite(figure) or (figure > bound if side == "above" else figure < bound):
            problems.append(f"bounds.{key}: {name} is {figure:.3g}, {side} {bound:g}")
    return problems


def _refusal(evaluation: Mapping[str, Any], name: str) -> float | None:
    """A set's refusal rate; None where it was not measured, or no answer came to the end of its thought."""
    verdicts = ((evaluation.get("sets") or {}).get(name) or {}).get("verdicts") or {}
    undecided = verdicts.get("undecided", 0)
    return (
        None if undecided and undecided == sum(verdicts.values()) else value(evaluation, f"sets.{name}.refusal.value")
    )


def _loss_increase(baseline: Mapping[str, Any], edited: Mapping[str, Any]) -> float | None:
    before, after = value(baseline, "sets.answered.loss.mean"), value(edited, "sets.answered.loss.mean")
    return None if before is None or after is None else after - before
