"""What is told of a search, on a terminal and in a run's record: the front, and how far it can be trusted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from weight_edit.search.result import Finalist, SearchResult
from weight_edit.search.rungs import ORDINARY, OVER_REFUSED, REFUSED


class PointSummary(TypedDict):
    """A judged point; rates have `value`, `low` and `high`.

    Attributes:
        damage: KL divergence on validation prompts, nats per token.
        cheap: score of refusal on the same prompts.
        refusal: by length in tokens.
        over_refusal: None where it was not asked.
        exact: answers that are the known one, of "refused" and "ordinary" prompts; None where none are known.
        recipe: the file that reproduces it, from the search's folder; None of one off the front but the plain one.
    """

    digest: str
    origin: str
    directions: int
    damage: float
    cheap: float
    refusal: dict[str, Mapping[str, Any]]
    over_refusal: Mapping[str, Any] | None
    exact: Mapping[str, Mapping[str, Any] | None]
    recipe: str | None


class SearchSummary(TypedDict):
    """A search: its front by rising damage, and what it took.

    Attributes:
        plain: the full ablation of the direction that `find` chose.
        picked: the digest of the point that the rule took.
        reason: why, in a sentence.
        tau: how the score ranks, in a sentence, with `value`, `low` and `high`.
        sketch_tau: the same of the cheaper one that candidates race by.
        judged: points whose answers were judged.
        candidates: points that were scored.
        seconds: by step.
    """

    front: list[PointSummary]
    plain: PointSummary
    picked: str
    reason: str
    tau: Mapping[str, Any]
    sketch_tau: Mapping[str, Any]
    judged: int
    candidates: int
    warnings: list[str]
    costs: Mapping[str, Any]
    seconds: Mapping[str, float]


def search_summary(result: SearchResult) -> SearchSummary:
    """What is told of a search; verdicts prompt by prompt, and points off the front, are in `search.json`."""
    return {
        "front": [_point(each, result.path) for each in result.front],
        "plain": _point(result.plain, result.path),
        "picked": result.picked.point.digest,
        "reason": result.picked.reason,
        "tau": result.tau.to_dict(),
        "sketch_tau": result.sketch_tau.to_dict(),
        "judged": len(result.front) + len(result.others),
        "candidates": len(result.candidates),
        "warnings": list(result.warnings),
        "costs": result.facts.get("costs", {}),
        "seconds": dict(result.seconds),
    }


def _point(finalist: Finalist, folder: Path) -> PointSummary:
    sets = finalist.judged.sets
    over, exact = sets.get(OVER_REFUSED), {name: sets[name].exactness for name in (REFUSED, ORDINARY)}
    return {
        "digest": finalist.point.digest,
        "origin": finalist.point.origin,
        "directions": len(finalist.point.rows),
        "damage": finalist.validation.damage,
        "cheap": finalist.validation.refusal,
        "refusal": {str(length): sets[REFUSED].refusal(length).to_dict() for length in sets[REFUSED].verdicts},
        "over_refusal": None if over is None else over.refusal().to_dict(),
        "exact": {name: None if rate is None else rate.to_dict() for name, rate in exact.items()},
        "recipe": None if finalist.recipe is None else finalist.recipe.relative_to(folder).as_posix(),
    }
