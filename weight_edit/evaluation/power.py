"""The number of prompts that is needed to tell two rates apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.differences import PairedDifference
from weight_edit.evaluation.intervals import Z

POWER = 0.8
"""The chance, where there is a difference, that the test tells it."""

_FEWEST = 6  # prompts that differ, all to one side: of five, McNemar's exact p is .0625


@dataclass(frozen=True, kw_only=True)
class SampleSize:
    """The numbers of prompts that tell two rates apart at the level .05, two-sided, with a given power.

    With d the difference of the rates, and z_a and z_b the normal quantiles of 1 - .05 / 2 and of the power:

        unpaired    (z_a sqrt(2 m (1 - m)) + z_b sqrt(r (1 - r) + s (1 - s)))^2 / d^2    for rates r, s of mean m
        paired      (z_a sqrt(D) + z_b sqrt(D - d^2))^2 / d^2 + 1 / |d|                  if a share D of pairs differs

    (Fleiss, Statistical Methods for Rates and Proportions, chapter 4; Connor, Biometrics 43, 1987, 207-211, with the
    correction for McNemar's exact test). Equal rates cannot be told apart by any number: None.

    Attributes:
        first, second: the rates, in [0, 1].
        differing: the share of prompts on which only one of the two models has the outcome; None where unknown. It is
            between `|d|` and `r (1 - s) + s (1 - r)`, which is that of models that are independent prompt by prompt.
        power: the chance that the test tells them apart.

    Raises:
        UsageError: a rate or the power is none, or the share is smaller than the difference.
    """

    first: float
    second: float
    differing: float | None = None
    power: float = POWER

    def __post_init__(self) -> None:
        if not (0 <= self.first <= 1 and 0 <= self.second <= 1):
            raise UsageError(f"rates lie between 0 and 1, not {self.first:g} and {self.second:g}")
        if not 0 < self.power < 1:
            raise UsageError(f"a power lies between 0 and 1, not {self.power:g}")
        if self.differing is not None and not abs(self.difference) - 1e-12 <= self.differing <= 1:
            raise UsageError(f"rates that differ by {self.difference:g} differ on more prompts than {self.differing:g}")

    @classmethod
    def of(cls, difference: PairedDifference, power: float = POWER) -> "SampleSize":
        """The numbers for rates as they were observed, with the share of pairs that were seen to differ."""
        both, total = difference.both, difference.total
        return cls(
            first=(both + difference.first) / total,
            second=(both + difference.second) / total,
            differing=(difference.first + difference.second) / total,
            power=power,
        )

    @property
    def difference(self) -> float:
        """The second rate minus the first."""
        return self.second - self.first

    @property
    def unpaired(self) -> int | None:
        """Prompts for each model where the two answer different ones."""
        if self.difference == 0:
            return None
        mean = (self.first + self.second) / 2
        apart = self.first * (1 - self.first) + self.second * (1 - self.second)
        return ceil((Z * sqrt(2 * mean * (1 - mean)) + self._quantile * sqrt(apart)) ** 2 / self.difference**2)

    @property
    def paired(self) -> int | None:
        """Prompts that both models answer, with the share of differing pairs; None where that is not known."""
        return None if self.differing is None else self._paired(self.differing)

    @property
    def paired_range(self) -> tuple[int, int] | None:
        """The same for models that differ on as few prompts as they can, and for independent ones."""
        independent = self.first * (1 - self.second) + self.second * (1 - self.first)
        least, most = self._paired(abs(self.difference)), self._paired(independent)
        return None if least is None or most is None else (least, most)

    def _paired(self, differing: float) -> int | None:
        gap = abs(self.difference)
        if gap == 0:
            return None
        spread = Z * sqrt(differing) + self._quantile * sqrt(max(0.0, differing - gap**2))
        return max(_FEWEST, ceil(spread**2 / gap**2 + 1 / gap))

    @property
    def _quantile(self) -> float:
        return NormalDist().inv_cdf(self.power)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: the rates, the power, and the numbers; null for equal rates."""
        least, most = self.paired_range or (None, None)
        return {
            "first": self.first,
            "second": self.second,
            "differing": self.differing,
            "power": self.power,
            "unpaired": self.unpaired,
            "paired": self.paired,
            "paired_least": least,
            "paired_independent": most,
        }


def given_rates(text: str) -> tuple[float, float] | None:
    """Two rates from "0.1,0.2"; None for "observed".

    Raises:
        UsageError: it is neither.
    """
    if text == "observed":
        return None
    try:
        first, second = map(float, text.split(","))
    except ValueError:
        raise UsageError(
            f"`power={text!r}`: write two rates, such as `power='0.1,0.2'`, or `power='observed'`", option="power"
        ) from None
    SampleSize(first=first, second=second)
    return first, second


def sizes_observed(differences: Mapping[str, Mapping[str, PairedDifference]]) -> dict[str, SampleSize]:
    """The numbers for every difference of an evaluation from its base, by "refused.refusal" and so on."""
    return {
        f"{name}.{figure}": SampleSize.of(found)
        for name, by_figure in differences.items()
        for figure, found in by_figure.items()
    }
