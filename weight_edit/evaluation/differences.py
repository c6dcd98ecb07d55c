"""Paired differences of two models' rates on the same prompts, with intervals and p values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import copysign, inf, sqrt
from typing import TYPE_CHECKING, Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.comparisons import Comparison
from weight_edit.evaluation.intervals import Z
from weight_edit.evaluation.significance import mcnemar

if TYPE_CHECKING:
    from weight_edit.evaluation.answers import Answer

_HALVINGS = 60  # of an interval no longer than 2, down to the rounding of float64


@dataclass(frozen=True)
class PairedDifference:
    """The second model's rate minus the first's, on the same prompts, with a 95% interval.

    Tango's score interval (Statistics in Medicine 17, 1998, 891-908): all differences D for which

        |second - first - n D| <= 1.96 sqrt(n (2 q + D - D^2)),

    n prompts, q the most probable share of prompts on which the outcome comes of the first model alone if D is the
    difference. It stays within [-1, 1], has a width where all pairs agree, and for D = 0 is McNemar's asymptotic test.
    `benchmarks/coverage.py` holds it against Newcombe's method 10: nearer to 95% from 50 prompts on.

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
        return self._end(-1.0)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self._end(1.0)

    @property
    def p(self) -> float:
        """The p value of McNemar's exact test."""
        return mcnemar(self.first, self.second)

    @property
    def comparison(self) -> Comparison:
        """The difference with its p value, and whether it can be told."""
        return Comparison(value=self.value, low=self.low, high=self.high, p=self.p, count=self.total)

    def _end(self, bound: float) -> float:
        """The value furthest towards a bound, -1 or 1, that the score test does not reject."""
        inside, outside = self.value, bound
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            if abs(self._score(middle)) <= Z:
                inside = middle
            else:
                outside = middle
        return inside

    def _score(self, difference: float) -> float:
        """The score statistic of a difference, standard normal if that is the true one."""
        n, apart = self.total, self.second - self.first
        # q is the larger root of 2n q^2 + b q + c.
        b = (2 * n - apart) * difference - self.first - self.second
        c = -self.first * difference * (1 - difference)
        q = (sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * q + difference * (1 - difference))
        excess = apart - n * difference
        if variance <= 0:
            return 0.0 if excess == 0 else copysign(inf, excess)
        return excess / sqrt(variance)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: value, low, high, the four counts, p, and whether a difference can be told."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "both": self.both,
            "base_only": self.first,
            "edited_only": self.second,
            "neither": self.neither,
            "p": self.p,
            "told": self.comparison.told,
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


def differences_document(found: Mapping[str, Mapping[str, PairedDifference]]) -> dict[str, dict[str, Any]]:
    """Differences by prompt set, ready for JSON."""
    return {name: {of: each.to_dict() for of, each in some.items()} for name, some in found.items()}


def paired_difference(first: Sequence[bool], second: Sequence[bool]) -> PairedDifference:
    """The difference of two models' outcomes, prompt by prompt in one order.

    Raises:
        UsageError: no prompts, or not the same number.
    """
    if len(first) != len(second):
        raise UsageError(f"{len(first)} and {len(second)} outcomes are no pairs; give both models the same prompts")
    came = list(zip(first, second, strict=True))
    return PairedDifference(
        *(came.count(each) for each in ((True, True), (True, False), (False, True), (False, False)))
    )


def _paired(pairs: Sequence[tuple[Any, Any]], outcome: Callable[[Any], bool]) -> PairedDifference:
    return paired_difference([outcome(a) for a, _ in pairs], [outcome(b) for _, b in pairs])
