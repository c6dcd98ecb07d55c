"""Paired differences of two models' rates on the same prompts, with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.intervals import Rate

if TYPE_CHECKING:
    from weight_edit.evaluation.evaluate import Answer


@dataclass(frozen=True)
class PairedDifference:
    """The second model's rate minus the first's, on the same prompts, with a 95% interval.

    Newcombe's hybrid score interval for paired proportions with a continuity-corrected correlation (method 10 of
    Statistics in Medicine 17, 1998, 2635-2650): Wilson's limits of the two rates, put together with the correlation of
    the pairs. It stays within [-1, 1], and has a width where all pairs agree.

    Attributes:
        both, first, second, neither: prompts on which the outcome came of both models, of one of them alone, of none.

    Raises:
        UsageError: no prompts.
    """

    both: int
    first: int
    second: int
    neither: int

    def __post_init__(self) -> None:
        if self.total == 0:
            raise UsageError("a difference over zero prompts is unknown; give at least one prompt")

    @property
    def total(self) -> int:
        """Number of prompts."""
        return self.both + self.first + self.second + self.neither

    @property
    def value(self) -> float:
        """The difference itself, in [-1, 1]."""
        return (self.second - self.first) / self.total

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        one, other = self._rates
        return self.value - self._span(other.value - other.low, one.high - one.value)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        one, other = self._rates
        return self.value + self._span(other.high - other.value, one.value - one.low)

    @property
    def _rates(self) -> tuple[Rate, Rate]:
        return Rate(self.both + self.first, self.total), Rate(self.both + self.second, self.total)

    def _span(self, a: float, b: float) -> float:
        # Rounding may leave a little less than nothing.
        return sqrt(max(0.0, a * a - 2 * self._correlation * a * b + b * b))

    @property
    def _correlation(self) -> float:
        """The phi coefficient of the pairs, with a continuity correction where it is positive."""
        margins = (self.both + self.first) * (self.second + self.neither)
        margins *= (self.both + self.second) * (self.first + self.neither)
        if margins == 0:
            return 0.0
        product = self.both * self.neither - self.first * self.second
        corrected = max(product - self.total / 2, 0) if product > 0 else product
        return corrected / sqrt(margins)

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: value, low, high, and the four counts."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "both": self.both,
            "base_only": self.first,
            "edited_only": self.second,
            "neither": self.neither,
        }

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def differences(base: Sequence["Answer"], edited: Sequence["Answer"]) -> dict[str, dict[str, PairedDifference]]:
    """The differences by prompt set: "refusal", and "exact" where right answers are known.

    Args:
        base, edited: the two models' answers to the same prompts, in the same order.

    Raises:
        UsageError: the prompts are not the same.
    """
    if [(a.set, a.prompt) for a in base] != [(a.set, a.prompt) for a in edited]:
        raise UsageError("the base and the edited model were asked different prompts, so that their rates are no pairs")
    found: dict[str, dict[str, PairedDifference]] = {}
    for name in dict.fromkeys(answer.set for answer in base):
        pairs = [(a, b) for a, b in zip(base, edited, strict=True) if a.set == name]
        known = [(a, b) for a, b in pairs if a.expected is not None]
        found[name] = {"refusal": _paired(pairs, lambda answer: answer.verdict == "refused")}
        if known:
            found[name]["exact"] = _paired(known, lambda answer: answer.right)
    return found


def _paired(pairs: Sequence[tuple[Any, Any]], outcome: Callable[[Any], bool]) -> PairedDifference:
    came = [(outcome(a), outcome(b)) for a, b in pairs]
    return PairedDifference(
        *(came.count(each) for each in ((True, True), (True, False), (False, True), (False, False)))
    )
