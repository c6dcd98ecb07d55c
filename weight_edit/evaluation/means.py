"""Means over prompts, and paired differences of two models' means, by the bootstrap."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from weight_edit.errors import UsageError
from weight_edit.evaluation.comparisons import Comparison
from weight_edit.evaluation.significance import LEVEL

RESAMPLES = 9999
_SEED = 0
_DRAWN = 1 << 20  # numbers drawn at a time: a few tens of MB, whatever the number of prompts


def mean_comparison(values: Sequence[float]) -> Comparison:
    """The mean over prompts with a 95% interval, and the p value of a true mean of 0.

    The symmetric studentised bootstrap (Hall, The Annals of Statistics 16, 1988, 927-953): in each of 9,999 resamples
    of the n prompts `t* = |mean* - mean| / (deviation* / sqrt n)`, and the interval is `mean -+ q deviation / sqrt n`
    with q the 95% quantile of t*. p is the share of t* at or above `|mean| sqrt n / deviation`, so that the interval
    holds 0 exactly where p is above .05. A resample without deviation counts as the largest t*. The seed is fixed: the
    same values give the same interval.

    By `benchmarks/coverage.py` it holds the truth in 93 to 97 cases of 100 from 50 prompts on, of lognormal values,
    whose mean hangs on a few prompts, in 92 or 93; of 20 prompts in 90 to 98. Percentiles and BCa do so in 90 to 96
    from 50 prompts on, and in 85 to 95 of 20.

    Args:
        values: one per prompt, such as the divergence on each, or a difference of two models on each.

    Raises:
        UsageError: fewer than three values, or one that is not finite.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or len(given) < 3:  # of two, a resample is those two or has no deviation
        raise UsageError("a mean with an interval needs at least three prompts; give more")
    if not np.isfinite(given).all():
        raise UsageError("a mean over values that are not finite is unknown; leave those prompts out")
    mean, count = float(given.mean()), len(given)
    # Rounding alone leaves a deviation where all values are one.
    deviation = 0.0 if np.ptp(given) == 0 else float(given.std(ddof=1))
    error = deviation / count**0.5
    if error == 0:
        return Comparison(value=mean, low=mean, high=mean, p=1.0 if mean == 0 else 0.5 ** (count - 1), count=count)
    ratios = np.sort(_studentised((given - mean) / deviation))
    rank = int(np.ceil((1 - LEVEL) * (RESAMPLES + 1)))
    span = float(ratios[rank - 1]) * error
    beyond = RESAMPLES - int(np.searchsorted(ratios, abs(mean) / error, side="left"))
    return Comparison(value=mean, low=mean - span, high=mean + span, p=(1 + beyond) / (RESAMPLES + 1), count=count)


def mean_difference(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """The second model's mean minus the first's, over the same prompts, see `mean_comparison`.

    Args:
        first, second: a value per prompt, in one order.

    Raises:
        UsageError: as `mean_comparison`; or they are not equally many.
    """
    if len(first) != len(second):
        raise UsageError(f"{len(first)} and {len(second)} values are no pairs; give both models the same prompts")
    return mean_comparison(np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64))  # type: ignore[arg-type]


def _studentised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """|mean| over its standard error in resamples of centred values of deviation 1, (RESAMPLES,)."""
    generator = np.random.default_rng(_SEED)
    count = len(values)
    rows = max(1, _DRAWN // count)
    means, errors = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, rows):
        part = slice(start, min(start + rows, RESAMPLES))
        drawn = values[generator.integers(0, count, (part.stop - start, count))]
        means[part] = np.abs(drawn.mean(axis=1))
        errors[part] = drawn.std(axis=1, ddof=1) / count**0.5
    varied = errors > 1e-9  # of values of deviation 1, less is rounding
    ratios = means / np.where(varied, errors, 1.0)
    return np.where(varied, ratios, ratios[varied].max(initial=0.0))
