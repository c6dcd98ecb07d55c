"""P values: McNemar's exact test, Holm's correction, and what is said of a difference."""

import json
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.evaluation.comparisons import UNTOLD, Comparison, family
from weight_edit.evaluation.significance import fisher_above, holm, mcnemar


def test_mcnemar_of_the_published_example() -> None:
    """Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013): airway reactivity, 1 and 7."""
    assert mcnemar(1, 7) == pytest.approx(0.0703, abs=5e-5)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_binomial_tail(first: int, second: int) -> None:
    n = first + second
    chances = [comb(n, k) / 2**n for k in range(n + 1)]
    # Both tails, one after the other: all outcomes that are at least as far from the middle.
    literal = sum(p for k, p in enumerate(chances) if abs(k - n / 2) >= abs(first - n / 2))
    assert mcnemar(first, second) == pytest.approx(literal)
    assert mcnemar(first, second) == mcnemar(second, first)


def test_mcnemar_of_many_prompts_is_the_normal_test_and_never_fails() -> None:
    # z = 1.96 with continuity correction: (|b - c| - 1) / sqrt(b + c)
    assert mcnemar(4901, 5098) == pytest.approx(0.05, abs=0.001)
    assert 0 <= mcnemar(0, 30_000) < 1e-300
    assert mcnemar(0, 0) == 1.0
    with pytest.raises(ValueError, match="negative"):
        mcnemar(-1, 3)


def test_five_prompts_to_one_side_are_too_few_and_six_are_enough() -> None:
    assert mcnemar(0, 5) > 0.05 > mcnemar(0, 6)


def test_holm_step_by_step() -> None:
    """.005 x 4, .01 x 3, .03 x 2, and .04 takes over the value before it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.2]) == [0.2]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.1, 1.1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_steps_reject(values: list[float]) -> None:
    level, rejected = 0.05, set()
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if (len(values) - rank) * values[place] > level:
            break
        rejected.add(place)
    assert {place for place, p in enumerate(holm(values)) if p <= level} == rejected


def compared(p: float, low: float = 0.1, high: float = 0.3) -> Comparison:
    return Comparison(value=(low + high) / 2, low=low, high=high, p=p, count=50)


def test_a_difference_is_told_by_interval_and_p_value_together() -> None:
    assert compared(0.01).verdict == "higher"
    assert compared(0.01, -0.3, -0.1).verdict == "lower"
    assert compared(0.06).verdict == UNTOLD
    assert compared(0.01, -0.1, 0.3).verdict == UNTOLD
    assert str(compared(0.06)).endswith(f"p = 0.06: {UNTOLD}")
    assert json.loads(json.dumps(compared(0.01).to_dict()))["told"] is True


def test_one_of_many_needs_more() -> None:
    alone = compared(0.02)
    (first, *others) = family([alone, compared(0.5), compared(0.6)])
    assert alone.told
    assert first.corrected == pytest.approx(0.06)
    assert not first.told
    assert first.to_dict()["p_holm"] == pytest.approx(0.06)
    assert [each.corrected for each in others] == [1.0, 1.0]


def test_fishers_test_of_the_lady_tasting_tea() -> None:
    assert fisher_above(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert fisher_above(4, 4, 0, 4) == pytest.approx(1 / 70)
    assert fisher_above(0, 4, 0, 4) == 1
    assert fisher_above(1, 4, 4, 4) == 1
    with pytest.raises(ValueError, match="5 in 4"):
        fisher_above(5, 4, 0, 4)


@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_fishers_test_counts_the_ways_to_deal_the_outcomes(first_total: int, second_total: int, data) -> None:
    first, second = data.draw(st.integers(0, first_total)), data.draw(st.integers(0, second_total))
    deals = list(combinations(range(first_total + second_total), first + second))
    above = sum(sum(place < first_total for place in deal) >= first for deal in deals)
    assert fisher_above(first, first_total, second, second_total) == pytest.approx(above / len(deals))
