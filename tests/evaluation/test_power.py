"""The number of prompts that tells two rates apart: published figures, and the exact test's own power."""

from math import comb

import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation.differences import PairedDifference
from weight_edit.evaluation.power import SampleSize, given_rates, sizes_observed
from weight_edit.evaluation.significance import mcnemar


def test_the_published_number_of_unpaired_prompts() -> None:
    """R's `power.prop.test(p1 = .50, p2 = .75, power = .90)`: n = 76.7 in each group."""
    assert SampleSize(first=0.5, second=0.75, power=0.9).unpaired == 77


def exact_power(prompts: int, first: float, second: float) -> float:
    """The chance that McNemar's exact p is at most .05, summed over all outcomes."""
    differing = first + second
    power = 0.0
    for count in range(prompts + 1):
        chance = comb(prompts, count) * differing**count * (1 - differing) ** (prompts - count)
        if chance < 1e-9:
            continue
        for one in range(count + 1):
            share = comb(count, one) * (first / differing) ** one * (second / differing) ** (count - one)
            power += chance * share * (mcnemar(one, count - one) <= 0.05)
    return power


@pytest.mark.parametrize(
    ("first", "second", "differing"),
    [(0.1, 0.25, 0.15), (0.9, 0.5, 0.5), (0.5, 0.7, 0.4), (0.05, 0.9, 0.87)],
)
def test_so_many_paired_prompts_give_the_power_and_few_less_do_not(
    first: float, second: float, differing: float
) -> None:
    needed = SampleSize(first=first, second=second, differing=differing).paired
    assert needed is not None
    gap = second - first
    shares = ((differing - gap) / 2, (differing + gap) / 2)
    assert exact_power(needed, *shares) >= 0.78
    assert exact_power(int(0.8 * needed), *shares) < 0.8


def test_pairs_that_differ_seldom_need_fewer_prompts() -> None:
    size = SampleSize(first=0.1, second=0.2)
    assert size.paired is None
    least, most = size.paired_range or (0, 0)
    assert least < 0.5 * most
    assert most == pytest.approx(size.unpaired, rel=0.1)
    assert SampleSize(first=0.1, second=0.2, differing=0.1).paired == least


def test_equal_rates_are_told_apart_by_no_number_and_opposite_ones_by_six() -> None:
    same = SampleSize(first=0.3, second=0.3, differing=0.1)
    assert (same.unpaired, same.paired, same.paired_range) == (None, None, None)
    assert same.to_dict()["paired_least"] is None
    assert SampleSize(first=0.0, second=1.0, differing=1.0).paired == 6


def test_observed_rates_with_their_pairs() -> None:
    found = sizes_observed({"refused": {"refusal": PairedDifference(both=80, first=12, second=4, neither=4)}})
    size = found["refused.refusal"]
    assert (size.first, size.second, size.differing) == pytest.approx((0.92, 0.84, 0.16))
    assert size.paired == SampleSize(first=0.92, second=0.84, differing=0.16).paired
    assert 150 < (size.paired or 0) < 250


def test_rates_as_they_are_written() -> None:
    assert given_rates("observed") is None
    assert given_rates(".1, .25") == (0.1, 0.25)
    for text in ("0.1", "0.1,0.2,0.3", "a,b", "nan", ""):
        with pytest.raises(UsageError, match="write two rates"):
            given_rates(text)
    for text in ("1,20", "nan,0.1", "-0.1,0.5"):
        with pytest.raises(UsageError, match="between 0 and 1"):
            given_rates(text)
    with pytest.raises(UsageError, match="power"):
        SampleSize(first=0.1, second=0.2, power=1.0)
    with pytest.raises(UsageError, match="differ on more prompts"):
        SampleSize(first=0.1, second=0.5, differing=0.2)
