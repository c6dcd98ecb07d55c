"""Whether an edit changed the behaviour that was measured, beside whether it is complete: two questions.

What is left of a direction says how complete an edit is, never that it worked: the direction may be a decoy, or carry
something else. And a behaviour may be gone while much of the component is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.evaluation.comparisons import UNTOLD
from weight_edit.evaluation.figures import RATES

MEANINGFUL = 0.1
"""The smallest difference of a rate that is called an effect: ten points."""

CHANGED, SLIGHT, UNCHANGED, UNKNOWN = "changed", "changed slightly", "unchanged", "cannot be told"
"""The verdicts on a rate and on a whole evaluation."""

MUCH = 0.1
"""The share of the stream along the directions from which on much of the component is left."""

ANOTHER_QUESTION = "completeness, not effect: whether the behaviour changed is measured by `evaluate` beside the base"
"""The words beside figures of what an edit leaves."""

_ELSEWHERE = (
    "What was edited does not carry the behaviour alone. Find again on the edited model and edit it once more (a decoy "
    "hides what lies behind it), let candidates answer before one is chosen (`confirm` of `find`), or look at other "
    "`positions` or by another `method`."
)


_NOT_ASKED = (
    "The base refuses hardly any of these requests, so that an edit which removes refusal cannot show on them: give "
    "`refused` PROMPTS."
)


@dataclass(frozen=True, kw_only=True)
class RateChange:
    """A rate of refusal before and after the edit, on the same prompts.

    Attributes:
        words: what it is a rate of.
        before, after: the rates, in [0, 1].
        value, low, high: their difference with its 95% interval.
        told: whether the paired test tells a difference.
        count: number of prompts.
    """

    words: str
    before: float
    after: float
    value: float
    low: float
    high: float
    told: bool
    count: int

    @property
    def verdict(self) -> str:
        """Of the paired test: `CHANGED`, or `SLIGHT` where the interval excludes `MEANINGFUL` differences.

        Where no difference can be told: `UNCHANGED` where the interval excludes them, else `UNKNOWN`.
        """
        within = max(-self.low, self.high) < MEANINGFUL
        if self.told:
            return SLIGHT if within else CHANGED
        return UNCHANGED if within else UNKNOWN

    def __str__(self) -> str:
        apart = f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"
        untold = "" if self.told else f", {UNTOLD}"
        return f"{self.words} from {self.before:.3f} to {self.after:.3f} ({apart}{untold}; {self.count} prompts)"


@dataclass(frozen=True, kw_only=True)
class Effect:
    """An edit's completeness and its effect.

    Attributes:
        rates: the rates of refusal of every set.
        complete: whether the edit leaves nothing and a verification says so; None where none is known.
        left: the largest share of the residual stream along the directions in the edited model, and in the base; None
            where it was not measured.
    """

    rates: tuple[RateChange, ...]
    complete: bool | None = None
    left: tuple[float, float | None] | None = None

    @property
    def verdict(self) -> str:
        """The strongest verdict on any rate; where none changed, `UNKNOWN` if one cannot be told."""
        found = {rate.verdict for rate in self.rates}
        return next(verdict for verdict in (CHANGED, SLIGHT, UNKNOWN, UNCHANGED) if verdict in found)

    @property
    def finding(self) -> str:
        """Whether the edit is complete, and whether the behaviour changed, with the rates: a sentence."""
        first, verdict = self._completeness, self.verdict
        figures = "; ".join(str(rate) for rate in self.rates if rate.verdict == verdict)
        points = f"{100 * MEANINGFUL:.0f} points"
        said = {
            CHANGED: "the behaviour changed",
            SLIGHT: f"the behaviour changed, by less than {points}",
            UNCHANGED: "the behaviour did not change",
            UNKNOWN: "whether the behaviour changed cannot be told",
        }[verdict]
        begun = f"{first}; and {said}" if first else said[0].upper() + said[1:]
        excluded = f"; a difference of {points} is excluded" if verdict == UNCHANGED else ""
        much = self.left is not None and self.left[0] > MUCH and verdict == CHANGED
        end = " What is left says how far the edit goes, not whether it works." if much else ""
        return f"{begun}: {figures}{excluded}.{end}"

    @property
    def hint(self) -> str:
        """What to do next; empty where the behaviour changed."""
        if self.verdict != CHANGED and all(rate.before < MEANINGFUL for rate in self.rates):
            return _NOT_ASKED
        if self.verdict == UNKNOWN:
            return "More prompts would tell; `power` of `evaluate` says how many."
        return _ELSEWHERE if self.verdict in (UNCHANGED, SLIGHT) else ""

    @property
    def _completeness(self) -> str:
        """The first clause; empty where nothing was verified."""
        if self.complete is None:
            return ""
        said = "The edit is complete" if self.complete else "The edit is not meant to remove all of its directions"
        if self.left is None:
            return said
        now, base = self.left
        before = "" if base is None else f", {base:.2f} in the base"
        return f"{said} (at most {now:.1e} of the residual stream lies along its directions{before})"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: verdict, text, complete, and the verdict on each rate by its name."""
        return {
            "verdict": self.verdict,
            "finding": self.finding,
            "hint": self.hint,
            "complete": self.complete,
            "rates": {rate.words: rate.verdict for rate in self.rates},
        }


def effect(evaluation: Mapping[str, Any], verification: Mapping[str, Any] | None = None) -> Effect | None:
    """The effect of an edit; None where the evaluation has no differences from the base.

    Args:
        evaluation: `Evaluation.to_dict()` of the edited model, with `differences`.
        verification: `Verification.to_dict()`, where it was verified; what failed says nothing of completeness.
    """
    found = []
    sets, apart = evaluation.get("sets") or {}, evaluation.get("differences") or {}
    for figure in RATES:
        _, name, of = figure.path.split(".")
        difference = (apart.get(name) or {}).get(of) if of == "refusal" else None
        if difference is None or name not in sets:
            continue
        after = sets[name]["refusal"]
        found.append(
            RateChange(
                words=figure.words.replace("over-refusal: ", "refusal of "),
                before=max(0.0, float(after["value"]) - float(difference["value"])),
                after=float(after["value"]),
                value=float(difference["value"]),
                low=float(difference["low"]),
                high=float(difference["high"]),
                # Earlier evaluations do not say it.
                told=bool(difference.get("told", not difference["low"] <= 0 <= difference["high"])),
                count=int(after["total"]),
            )
        )
    if not found:
        return None
    complete, left = _completeness(verification)
    return Effect(rates=tuple(found), complete=complete, left=left)


def _completeness(
    verification: Mapping[str, Any] | None,
) -> tuple[bool | None, tuple[float, float | None] | None]:
    if not isinstance(verification, Mapping) or verification.get("passed") is not True:
        return None, None
    leak, complete = verification.get("leak"), verification.get("complete")
    precision = (verification.get("by_dtype") or {}).get("float32") or {}
    left = None if leak is None else (float(leak), precision.get("leak_before"))
    return None if complete is None else bool(complete), left


def effect_document(
    evaluation: Mapping[str, Any], verification: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The effect of an edit, see `effect`, ready for JSON."""
    found = effect(evaluation, verification)
    return None if found is None else found.to_dict()
