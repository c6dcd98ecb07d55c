"""The figures of an evaluation as rows of text, for the terminal and the model card."""

from collections.abc import Mapping
from typing import Any

_RATES = (
    ("refusal of refused requests", "sets.refused.refusal"),
    ("helpful answer given to refused requests", "sets.refused.exact"),
    ("over-refusal: harmless requests that the base refuses", "sets.over_refused.refusal"),
    ("refusal of harmless-looking requests", "sets.harmless_looking.refusal"),
    ("refusal of ordinary requests", "sets.answered.refusal"),
    ("ordinary answers exactly right", "sets.answered.exact"),
)
_NUMBERS = (
    ("KL divergence at the first answer token (nats)", "divergence.mean"),
    ("cross-entropy of ordinary answers (nats per token)", "sets.answered.loss.mean"),
)


def figures(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Measure to text, for every figure that the evaluation has; rates with their intervals.

    Args:
        evaluation: `Evaluation.to_dict()`.
    """
    found: dict[str, str] = {}
    for name, path in _RATES:
        rate = _at(evaluation, path)
        if rate is not None:
            found[name] = f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
    apart = sum(
        result["verdicts"].get(kind, 0)
        for result in (evaluation.get("sets") or {}).values()
        for kind in ("empty", "looping", "off_template", "undecided")
    )
    for name, path in _NUMBERS:
        number = _at(evaluation, path)
        if number is not None:
            found[name] = f"{number:.4f}"
    if evaluation.get("sets"):
        found["empty, looping, off-template or undecided answers"] = str(apart)
    return found


def differences(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Measure to the difference from the base in text, with its interval where prompts are pairs.

    Args:
        evaluation: `Evaluation.to_dict()`, with what was measured of the base under "base".
    """
    found: dict[str, str] = {}
    for name, path in _RATES:
        apart = _at(evaluation, path.replace("sets.", "differences.", 1))
        if apart is not None:
            found[name] = f"{apart['value']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]"
    for name, path in _NUMBERS:
        before, after = _at(evaluation, f"base.{path}"), _at(evaluation, path)
        if before is not None and after is not None:
            found[name] = f"{after - before:+.4f}"
    return found


def value(evaluation: Mapping[str, Any], path: str) -> float | None:
    """A figure by its dotted path; None when it was not measured."""
    found = _at(evaluation, path)
    return None if found is None else float(found)


def _at(content: Mapping[str, Any], path: str) -> Any:
    place: Any = content
    for key in path.split("."):
        if not isinstance(place, Mapping) or place.get(key) is None:
            return None
        place = place[key]
    return place
