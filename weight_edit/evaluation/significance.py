"""P values: exact tests of paired and of unpaired rates, and Holm's correction over many comparisons."""

from collections.abc import Sequence
from math import comb

LEVEL = 0.05
"""The level at which a difference counts as told, that of the 95% intervals."""


def mcnemar(first: int, second: int) -> float:
    """The two-sided p value of McNemar's exact test: do two models come out alike on the same prompts?

    Under that hypothesis a prompt on which they differ is as likely to be one model's as the other's, so the smaller
    count is binomial with probability 1/2: `p = min(1, 2 P(X <= min(first, second)))`, X ~ B(first + second, 1/2). The
    exact test, without the mid-p correction: its level is never above the nominal one (about half of it for a dozen
    such prompts), where that of mid-p is so only on average.

    Args:
        first, second: prompts on which the outcome came of the first model alone, of the second alone.

    Raises:
        ValueError: a count is negative.
    """
    if first < 0 or second < 0:
        raise ValueError(f"negative counts: {first}, {second}")
    differing = first + second
    # Whole numbers, so that nothing is rounded before the division: C(n, 0) + ... + C(n, least).
    ways = total = 1
    for chosen in range(min(first, second)):
        ways = ways * (differing - chosen) // (chosen + 1)
        total += ways
    return min(1.0, 2 * total / 2**differing)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979), in the order in which they were given.

    Rejecting those at or below a level keeps the chance of even one false rejection among all of them at or below it,
    however they depend on one another: the smallest is multiplied with their number n, the next with n - 1, and so on,
    each at least as large as the one before and at most 1.

    Raises:
        ValueError: a value is not within [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p values lie between 0 and 1")
    corrected = [1.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = least
    return corrected


def fisher_above(first: int, first_total: int, second: int, second_total: int) -> float:
    """The one-sided p value of Fisher's exact test: is the first rate, of other prompts, above the second?

    Under the hypothesis that it is not, and with the outcomes in all given, the first's are hypergeometric: p is the
    chance of so many of them or more.

    Args:
        first, second: prompts with the outcome; first_total, second_total: all prompts of each.

    Raises:
        ValueError: a count is not between 0 and its total.
    """
    if not (0 <= first <= first_total and 0 <= second <= second_total):
        raise ValueError(f"rates of {first} in {first_total} and {second} in {second_total}")
    came = first + second
    ways = sum(
        comb(first_total, count) * comb(second_total, came - count)
        for count in range(first, min(came, first_total) + 1)
    )
    return ways / comb(first_total + second_total, came)
