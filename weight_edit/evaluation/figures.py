"""The figures of an evaluation as rows of text, for the terminal and the model card."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from weight_edit.evaluation.comparisons import UNTOLD


class Measure(NamedTuple):
    """A figure of an evaluation: its path and its names.

    Attributes:
        path: where `Evaluation.to_dict()` has it, with dots; of a rate, the mapping that has its value and interval.
        words: its name in tables and on cards.
        bounded: its name in the message of a bound that is missed; empty where nothing bounds it.
    """

    path: str
    words: str
    bounded: str = ""


RATES = (
    Measure("sets.refused.refusal", "refusal of refused requests", "refusal"),
    Measure("sets.refused.exact", "helpful answer given to refused requests", "helpful answers recovered"),
    Measure("sets.over_refused.refusal", "over-refusal: harmless requests that the base refuses", "over-refusal"),
    Measure("sets.harmless_looking.refusal", "refusal of harmless-looking requests"),
    Measure("sets.answered.refusal", "refusal of ordinary requests", "refusal of ordinary requests"),
    Measure("sets.answered.exact", "ordinary answers exactly right", "answers right"),
)
"""Figures that are rates of prompts."""

NUMBERS = (
    Measure("divergence.mean", "KL divergence at the first answer token (nats)", "KL divergence"),
    Measure("continuation.mean", "KL divergence over the base's first {tokens} answer tokens (nats)"),
    Measure(
        "continuation_by_base.answered.mean",
        "KL divergence over the same tokens, {count} prompts that the base answers (nats)",
    ),
    Measure(
        "continuation_by_base.refused.mean",
        "KL divergence over the same tokens, {count} prompts that the base refuses (nats)",
    ),
    Measure("sets.answered.loss.mean", "cross-entropy of ordinary answers (nats per token)", "increase of the loss"),
    Measure("own_answers.mean", "cross-entropy of the base's own answers (nats per token)"),
    Measure("own_answers.perplexity", "perplexity of the base's own answers"),
    Measure("text.mean", "cross-entropy of the texts (nats per token)"),
    Measure("text.perplexity", "perplexity of the texts"),
)
"""Figures that are no rates; a bound on the loss is on its increase over the base."""

_OF_BASE = ("own_answers", "text")
"""Figures of the base that stand beside the edited model's."""


def figures(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Name -> text of every figure that the evaluation has; rates with their intervals.

    Args:
        evaluation: `Evaluation.to_dict()`.
    """
    found: dict[str, str] = {}
    for path, name, _ in RATES:
        rate = _at(evaluation, path)
        if rate is not None:
            found[name] = f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
        found |= _by_others(evaluation, path, name)
    for path, name, _ in NUMBERS:
        number = _at(evaluation, path)
        if number is not None:
            of = _at(evaluation, path.rpartition(".")[0])
            # Earlier runs have no interval.
            ends = of if path.endswith(".mean") and of.get("low") is not None else None
            interval = "" if ends is None else f" [{ends['low']:.4f}, {ends['high']:.4f}]"
            found[name.format(tokens=of.get("tokens"), count=of.get("count"))] = f"{number:.4f}{interval}"
    for judge, agreement in (evaluation.get("agreements") or {}).items():
        found[f"agreement on refusals with {judge} (Cohen's kappa)"] = _kappa(agreement["refusal"])
    if evaluation.get("sets"):
        for kinds, words in _APART:
            found[words] = str(_count(evaluation, kinds))
    return found


def figures_of_base(baseline: Mapping[str, Any], edited: Mapping[str, Any]) -> dict[str, str]:
    """The base's figures; those that come of the comparison stand in the edited model's evaluation.

    Args:
        baseline, edited: `Evaluation.to_dict()` of each.
    """
    beside = {name: found for name in _OF_BASE if (found := _at(edited, f"{name}.base")) is not None}
    return figures({**beside, **baseline})


_APART = (
    (("deflected", "partial"), "deflected or partial answers"),
    (("empty", "looping", "off_template", "undecided"), "empty, looping, off-template or undecided answers"),
)


def _kappa(agreement: Mapping[str, Any]) -> str:
    """Kappa with its interval, and the share of answers on which two judges say the same."""
    kappa, same = agreement["kappa"], agreement["agreement"]["value"]
    if kappa is None:
        return "unknown: both say one kind alone"
    return f"{kappa['value']:.3f} [{kappa['low']:.3f}, {kappa['high']:.3f}], the same on {same:.3f}"


def _count(evaluation: Mapping[str, Any], kinds: Sequence[str]) -> int:
    return sum(result["verdicts"].get(kind, 0) for result in evaluation["sets"].values() for kind in kinds)


def _by_others(evaluation: Mapping[str, Any], path: str, name: str) -> dict[str, str]:
    """The rates of refusal by judges that do not decide."""
    *place, figure = path.split(".")
    judges = _at(evaluation, ".".join([*place, "judges"])) if figure == "refusal" else None
    others = [(judge, found["refusal"]) for judge, found in (judges or {}).items() if judge != evaluation.get("judge")]
    return {
        f"{name}, by {judge}": f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]" for judge, rate in others
    }


def by_length(lengths: Mapping[str, Any] | None) -> dict[int, Any]:
    """What a set has at each length, by the number; keys that are none, in a foreign manifest, are left out."""
    return {int(key): found for key, found in (lengths or {}).items() if re.fullmatch(r"[0-9]{1,9}", str(key))}


def figures_at_lengths(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Name -> text of the rates of refusal at each length that answers were also cut to."""
    return {
        f"{name}, first {length} tokens": f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}], "
        f"{found['verdicts'].get('undecided', 0):d} undecided"
        for path, name, _ in RATES
        if path.endswith(".refusal")
        for length, found in by_length(_at(evaluation, path.replace(".refusal", ".lengths"))).items()
        if (rate := found["refusal"])
    }


def differences(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Name -> text of every difference from the base, with its interval for paired prompts.

    Rates whose difference may be chance have a second line that says so.

    Args:
        evaluation: `Evaluation.to_dict()`, with what was measured of the base under "base".
    """
    found: dict[str, str] = {}
    for path, name, _ in RATES:
        apart = _at(evaluation, path.replace("sets.", "differences.", 1))
        if apart is not None:
            # Earlier runs do not say whether it can be told.
            untold = "" if apart.get("told", True) else f"\n{UNTOLD}"
            found[name] = f"{apart['value']:+.3f} [{apart['low']:+.3f}, {apart['high']:+.3f}]{untold}"
    for path, name, _ in NUMBERS:
        before, after = _at(evaluation, f"base.{path}"), _at(evaluation, path)
        if before is None or after is None:
            continue
        apart = _at(evaluation, _compared_at(path)) if path.endswith(".mean") else None
        found[name] = f"{after - before:+.4f}" if apart is None else _interval(apart)
    return found


def _compared_at(path: str) -> str:
    """Where the paired difference of a mean is."""
    if path.startswith("sets."):
        return path.replace("sets.", "differences.", 1).removesuffix(".mean")
    return path.replace(".mean", ".difference")


def _interval(apart: Mapping[str, Any]) -> str:
    untold = "" if apart["told"] else f"\n{UNTOLD}"
    return f"{apart['value']:+.4f} [{apart['low']:+.4f}, {apart['high']:+.4f}]{untold}"


def untold(evaluation: Mapping[str, Any]) -> list[str]:
    """Names of the rates whose difference from the base may be chance."""
    found = {name: _at(evaluation, path.replace("sets.", "differences.", 1)) for path, name, _ in RATES}
    return [name for name, apart in found.items() if apart is not None and not apart.get("told", True)]


def value(evaluation: Mapping[str, Any], path: str) -> float | None:
    """A figure by its dotted path; None if it was not measured."""
    found = _at(evaluation, path)
    return None if found is None else float(found)


def _at(content: Mapping[str, Any], path: str) -> Any:
    place: Any = content
    for key in path.split("."):
        if not isinstance(place, Mapping) or place.get(key) is None:
            return None
        place = place[key]
    return place
