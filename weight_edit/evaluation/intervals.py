"""A rate with its confidence interval."""

from dataclasses import dataclass
from math import sqrt

from weight_edit.errors import UsageError

Z = 1.959963984540054
"""The normal quantile of a two-sided 95% interval."""


@dataclass(frozen=True)
class Rate:
    """The rate `count` / `total`, with Wilson's 95% interval (1927).

    The interval is sound near 0 and 1 and for few prompts.

    Raises:
        UsageError: the total is 0; a rate over nothing is unknown, not 0.
        ValueError: the count is not between 0 and the total.
    """

    count: int
    total: int

    def __post_init__(self) -> None:
        if self.total == 0:
            raise UsageError("a rate over zero prompts is unknown; give at least one prompt")
        if not 0 <= self.count <= self.total:
            raise ValueError(f"a rate of {self.count} in {self.total}")

    @property
    def value(self) -> float:
        """The rate itself, in [0, 1]."""
        return self.count / self.total

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        # Exact where rounding would leave 1e-17 above nothing.
        return 0.0 if self.count == 0 else self._middle - self._half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return 1.0 if self.count == self.total else self._middle + self._half

    @property
    def _middle(self) -> float:
        return (self.count + Z**2 / 2) / (self.total + Z**2)

    @property
    def _half(self) -> float:
        spread = self.value * (1 - self.value) * self.total + Z**2 / 4
        return Z * sqrt(spread) / (self.total + Z**2)

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: value, low, high, count, total."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "count": self.count,
            "total": self.total,
        }

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
