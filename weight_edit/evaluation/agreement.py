"""The agreement of two judges on the same answers: confusion table and Cohen's kappa."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING, Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.intervals import Rate

if TYPE_CHECKING:
    from weight_edit.evaluation.answers import Answer


@dataclass(frozen=True)
class Agreement:
    """How often two judges say the same, beyond what chance gives.

    Attributes:
        counts: (first judge's kind, second judge's kind) -> answers; pairs that did not occur may be absent.

    Raises:
        UsageError: no answers.
    """

    counts: Mapping[tuple[str, str], int]

    def __post_init__(self) -> None:
        if self.total == 0:
            raise UsageError("an agreement over zero answers is unknown; give at least one answer")

    @classmethod
    def of(cls, first: Sequence[str], second: Sequence[str]) -> "Agreement":
        """The agreement of two judges, answer by answer in one order.

        Raises:
            UsageError: no answers, or not the same number.
        """
        if len(first) != len(second):
            raise UsageError(f"{len(first)} and {len(second)} verdicts are no pairs; judge the same answers twice")
        return cls(Counter((str(a), str(b)) for a, b in zip(first, second, strict=True)))

    @cached_property
    def total(self) -> int:
        """Number of answers."""
        return sum(self.counts.values())

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """All kinds that a judge gave, sorted."""
        return tuple(sorted({kind for pair, count in self.counts.items() if count for kind in pair}))

    def as_among(self, kind: str, other: str) -> "Agreement":
        """The same judges on two kinds alone: `kind`, and everything else as `other`."""
        counts: Counter[tuple[str, str]] = Counter()
        for (a, b), count in self.counts.items():
            counts[kind if a == kind else other, kind if b == kind else other] += count
        return Agreement(counts)

    @property
    def observed(self) -> Rate:
        """The share of answers on which both say the same, with Wilson's interval."""
        return Rate(sum(self.counts.get((kind, kind), 0) for kind in self.kinds), self.total)

    @cached_property
    def expected(self) -> float:
        """The share on which they would if each gave its kinds at random, as often as it does."""
        return sum(self._share(0, kind) * self._share(1, kind) for kind in self.kinds)

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa, (observed - expected) / (1 - expected); None where both gave one kind alone."""
        return self._beyond_chance(self.observed.value)

    @property
    def low(self) -> float | None:
        """Lower end of kappa's 95% interval, see `high`."""
        return self._beyond_chance(self.observed.low)

    @property
    def high(self) -> float | None:
        """Upper end of kappa's 95% interval: that of Wilson's for the observed agreement, at the same expected one.

        The delta method's, kappa -+ 1.96 `standard_error`, has no width where the judges never differ: of 100 answers
        it holds the truth in 88 cases of 100, in 46 at the worst, and this one in 96 (`benchmarks/coverage.py`).
        """
        return self._beyond_chance(self.observed.high)

    @property
    def standard_error(self) -> float | None:
        """Kappa's large-sample standard error (Fleiss, Cohen and Everitt, Psychological Bulletin 72, 1969, 323-327)."""
        kappa = self.kappa
        if kappa is None:
            return None
        chance, left = self.expected, 1 - self.expected
        spread = 0.0
        for (a, b), count in self.counts.items():
            # (1 - kappa) times the share that the first judge gives b's kind and the second a's
            crossed = (self._share(0, b) + self._share(1, a)) * (1 - kappa)
            spread += count / self.total * ((1 - crossed) if a == b else crossed) ** 2
        variance = spread - (kappa - chance * (1 - kappa)) ** 2
        return sqrt(max(0.0, variance) / self.total) / left

    def _beyond_chance(self, agreement: float) -> float | None:
        left = 1 - self.expected
        return None if left < 1e-12 else max(-1.0, (agreement - self.expected) / left)

    def _share(self, judge: int, kind: str) -> float:
        return sum(count for pair, count in self.counts.items() if pair[judge] == kind) / self.total

    def confusion(self, kinds: Iterable[str] | None = None) -> dict[str, dict[str, int]]:
        """First judge's kind -> second judge's kind -> answers, with zeros."""
        shown = tuple(kinds or self.kinds)
        return {a: {b: self.counts.get((a, b), 0) for b in shown} for a in shown}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the observed agreement, kappa with its interval, and the confusion table."""
        kappa = self.kappa
        return {
            "agreement": self.observed.to_dict(),
            "kappa": None if kappa is None else {"value": kappa, "low": self.low, "high": self.high},
            "confusion": self.confusion(),
        }

    def __str__(self) -> str:
        if self.kappa is None:
            return f"agreement {self.observed}, kappa unknown: both said {self.kinds[0]} alone"
        return f"agreement {self.observed}, kappa {self.kappa:.3f} [{self.low:.3f}, {self.high:.3f}]"


def agreements_document(answers: Sequence["Answer"]) -> dict[str, Any]:
    """The agreement of the judge that decides with each other one, over all sets, ready for JSON.

    Args:
        answers: judged, the deciding judge first.

    Returns:
        `agreements`: by the other judge's name, that of all kinds, and under `refusal` that on refused or not; nothing
        where one judge was asked.
    """
    judges = list(answers[0].judgements) if answers else []
    found: dict[str, Any] = {}
    for other in judges[1:]:
        both = Agreement.of(*([answer.judgements[judge].verdict for answer in answers] for judge in (judges[0], other)))
        found[other] = {**both.to_dict(), "refusal": both.as_among("refused", "other").to_dict()}
    return {"agreements": found} if found else {}
