"""How well a cheap score ranks candidates as a dear one does: Kendall's tau with its interval."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from weight_edit.utils.arrays import Floats

GOOD = 0.7
"""The tau from which on a score ranks well: 85 of 100 pairs in the right order where there are no ties."""

ENOUGH = 10
"""Candidates below which nothing is said of a ranking: the interval of so few does not hold what it says."""

RESAMPLES = 2000
_SEED = 0

Verdict = Literal["well", "poorly", "cannot be told"]


@dataclass(frozen=True, kw_only=True)
class Tau:
    """Kendall's tau-b of two figures of the same candidates, with a 95% interval.

    Attributes:
        value: in [-1, 1]; None where it is undefined.
        low, high: ends of the interval; None where there is none.
        n: candidates.
        ties_first, ties_second: pairs of candidates that are equal by the first, by the second figure.
        undefined: why there is no value, in a few words; else None.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    ties_first: int
    ties_second: int
    undefined: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Whether the one ranks as the other does: "well" or "poorly" where the interval is on one side of `GOOD`."""
        if self.low is None or self.high is None or self.n < ENOUGH:
            return "cannot be told"
        if self.low >= GOOD:
            return "well"
        return "poorly" if self.high < GOOD else "cannot be told"

    @property
    def sentence(self) -> str:
        """What the tau says of the cheap score, for a reader of the result."""
        if self.value is None or self.low is None or self.high is None:
            return f"whether the cheap score ranks as the judge does cannot be told: {self.undefined}"
        figures = f"tau {self.value:.2f} [{self.low:.2f}, {self.high:.2f}] on {self.n} candidates"
        if self.n < ENOUGH:
            return f"whether the cheap score ranks as the judge does cannot be told of so few candidates: {figures}"
        if self.verdict == "well":
            return f"the cheap score ranks well: {figures}"
        if self.verdict == "poorly":
            chance = ", no order that chance alone does not give" if self.low <= 0 <= self.high else ""
            return f"the cheap score ranks poorly: {figures}{chance}; trust judged points alone"
        return f"whether the cheap score ranks well (a tau of {GOOD:g}) cannot be told: {figures}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values: the fields, the verdict and the sentence."""
        return {**asdict(self), "verdict": self.verdict, "sentence": self.sentence}


def kendall(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> Tau:
    """Kendall's tau-b of two figures of the same candidates.

    With s the sign of a pair's difference in each figure, `tau = sum(s1 s2) / sqrt(sum(s1^2) sum(s2^2))` over all pairs
    (Kendall, Biometrika 33, 1945, 239-251): pairs that are equal by one figure have no order. The interval is between
    the 2.5% and 97.5% quantiles of 2,000 bootstrap samples of the candidates, those without a tau left out; the seed is
    fixed, so the same figures give the same interval. Simulated for judged rates of 48 prompts and a tau of 0 to .84 it
    holds the true one in 94 to 98 of 100 cases of 12, 30 and 60 candidates, as does BCa, which is wider, where
    studentised ones on the scale of artanh do so in 87 to 99. Of a perfect ranking the interval has no width.

    Args:
        first: the cheap score; second: the judged rate.

    Raises:
        ValueError: not the same number of figures, or one that is not finite.
    """
    x, y = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"figures of shapes {x.shape} and {y.shape} are no pairs")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("figures that are not finite have no order")
    signs = [np.sign(values[:, None] - values[None]) for values in (x, y)]
    ties = [int((each[np.triu_indices(len(x), 1)] == 0).sum()) for each in signs]
    counts: dict[str, Any] = {"n": len(x), "ties_first": ties[0], "ties_second": ties[1]}
    undefined = None
    if len(x) < 3:
        undefined = f"{len(x)} candidates have no ranking"
    elif not signs[0].any():
        undefined = f"all cheap scores are equal ({x[0]:.3g})"
    elif not signs[1].any():
        undefined = f"all judged rates are equal ({y[0]:.3g})"
    if undefined is not None:
        return Tau(value=None, low=None, high=None, undefined=undefined, **counts)
    value = float(_taus(np.ones((1, len(x))), signs)[0])
    drawn = np.random.default_rng(_SEED).multinomial(len(x), np.full(len(x), 1 / len(x)), size=RESAMPLES)
    taus = _taus(drawn.astype(np.float64), signs)
    low, high = np.quantile(taus[np.isfinite(taus)], [0.025, 0.975])
    # Resamples of tied figures need not reach the value itself.
    return Tau(value=value, low=min(value, float(low)), high=max(value, float(high)), **counts)


def _taus(weights: Floats, signs: Sequence[Floats]) -> Floats:
    """Tau-b of samples in which candidates come more than once, or not at all; NaN where it is undefined.

    Args:
        weights: (samples, candidates) how often each comes; a candidate is no pair with itself.
        signs: (candidates, candidates) of pairs' differences, by each figure.
    """

    def over_pairs(values: Floats) -> Floats:
        return ((weights @ values) * weights).sum(axis=1)

    square = over_pairs(signs[0] ** 2) * over_pairs(signs[1] ** 2)
    defined = square > 0
    tau = over_pairs(signs[0] * signs[1]) / np.sqrt(np.where(defined, square, 1.0))
    return np.where(defined, np.clip(tau, -1.0, 1.0), np.nan)
