"""A difference between two models that says whether it can be told from chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from weight_edit.evaluation.significance import LEVEL, holm

UNTOLD = "no difference can be told"
"""The words for a difference that may be chance."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The second model's figure minus the first's, with a 95% interval and a p value.

    Attributes:
        value, low, high: the difference and the ends of its interval.
        p: two-sided, of the hypothesis that there is no difference.
        count: prompts that both models answered.
        corrected: the p value after Holm's correction over a family of comparisons; None for one alone.
    """

    value: float
    low: float
    high: float
    p: float
    count: int
    corrected: float | None = None

    @property
    def told(self) -> bool:
        """Whether there is a difference: 0 is outside of the interval, and p (the corrected one) is at most .05."""
        decisive = self.p if self.corrected is None else self.corrected
        return decisive <= LEVEL and not self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """In words: "higher", "lower" or "no difference can be told"."""
        if not self.told:
            return UNTOLD
        return "higher" if self.value > 0 else "lower"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: value, low, high, p, count, told, and p_holm where there is a family."""
        family = {} if self.corrected is None else {"p_holm": self.corrected}
        own = {"value": self.value, "low": self.low, "high": self.high, "p": self.p, "count": self.count}
        return {**own, **family, "told": self.told}

    def __str__(self) -> str:
        decisive = f"p = {self.p:.2g}" if self.corrected is None else f"p = {self.corrected:.2g} of several (Holm)"
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {decisive}: {self.verdict}"


def family(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons made together, such as those of many edits with one base, with p values corrected by Holm's rule."""
    corrected = holm([comparison.p for comparison in comparisons])
    return [replace(comparison, corrected=p) for comparison, p in zip(comparisons, corrected, strict=True)]
