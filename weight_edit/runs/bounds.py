"""The bounds of a recipe on damage: an edited model beyond them is not shown as finished."""

import math
from collections.abc import Mapping
from typing import Any

from weight_edit.evaluation.figures import NUMBERS, RATES, value
from weight_edit.recipe.recipe import Bounds

_BOUNDS = (
    ("max_refusal", "sets.refused.refusal", "above"),
    ("min_refusal", "sets.refused.refusal", "below"),
    ("max_over_refusal", "sets.over_refused.refusal", "above"),
    ("min_ordinary_refused", "sets.answered.refusal", "below"),
    ("min_answers_right", "sets.answered.exact", "below"),
    ("min_helpful_recovered", "sets.refused.exact", "below"),
    ("max_kl", "divergence.mean", "above"),
    ("max_loss_increase", "sets.answered.loss.mean", "above"),
)
"""(bound, path of its figure, side on which it is missed)."""

_NAMES = {figure.path: figure.bounded for figure in (*RATES, *NUMBERS)}


def beyond_bounds(bounds: Bounds, baseline: Mapping[str, Any], edited: Mapping[str, Any]) -> list[str]:
    """One line per bound that is missed.

    A bound whose measure was not taken, or is no number, is missed.

    The two bounds that recipes have by default, on divergence and loss, are passed over where no set was given
    that they could be measured on.

    Args:
        bounds: of the recipe.
        baseline, edited: `Evaluation.to_dict()` before and after.
    """
    problems = []
    for key, path, side in _BOUNDS:
        bound = getattr(bounds, key)
        if bound is None:
            continue
        figure = _loss_increase(baseline, edited) if key == "max_loss_increase" else _figure(edited, path)
        if figure is None and key in ("max_kl", "max_loss_increase"):
            continue
        name = _NAMES[path]
        if figure is None:
            # Of a rate of refusal there may be a note that says why.
            of_set = f"to the {path.split('.')[1]} set" if path.endswith(".refusal") else None
            told = (note for note in edited.get("notes") or () if of_set and of_set in note)
            problems.append(f"bounds.{key}: {name} was not measured; {next(told, 'name a prompt set under evaluate')}")
        elif not math.isfinite(figure) or (figure > bound if side == "above" else figure < bound):
            problems.append(f"bounds.{key}: {name} is {figure:.3g}, {side} {bound:g}")
    return problems


def _figure(evaluation: Mapping[str, Any], path: str) -> float | None:
    """A figure by its path; None if not measured, or if all answers of its set are undecided."""
    if path.startswith("divergence"):
        return value(evaluation, path)
    _, name, kind = path.split(".")
    verdicts = ((evaluation.get("sets") or {}).get(name) or {}).get("verdicts") or {}
    undecided = verdicts.get("undecided", 0)
    if kind == "refusal" and undecided and undecided == sum(verdicts.values()):
        return None
    return value(evaluation, f"{path}.value")


def _loss_increase(baseline: Mapping[str, Any], edited: Mapping[str, Any]) -> float | None:
    before, after = value(baseline, "sets.answered.loss.mean"), value(edited, "sets.answered.loss.mean")
    return None if before is None or after is None else after - before
