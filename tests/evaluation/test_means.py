"""Means with bootstrap intervals: the literal computation, coverage, and what cannot be told."""

import numpy as np
import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation import means
from weight_edit.evaluation.means import RESAMPLES, mean_comparison, mean_difference


def test_it_is_the_studentised_bootstrap_as_published() -> None:
    values = [0.1, 0.4, -0.3, 0.9, 0.2, 0.6, 0.35, -0.05]
    found = mean_comparison(values)
    rng, mean, n = np.random.default_rng(7), np.mean(values), len(values)
    ratios = []
    for _ in range(20_000):
        drawn = rng.choice(values, n)
        ratios.append(abs(drawn.mean() - mean) / (drawn.std(ddof=1) / n**0.5))
    span = np.quantile(ratios, 0.95) * np.std(values, ddof=1) / n**0.5
    assert found.value == pytest.approx(mean)
    assert (found.high - found.low) / 2 == pytest.approx(span, rel=0.05)
    assert found.high - found.value == pytest.approx(found.value - found.low)
    error = np.std(values, ddof=1) / n**0.5
    assert found.p == pytest.approx(np.mean(np.array(ratios) >= mean / error), abs=0.01)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.35, 0.45, 0.8])
def test_the_interval_holds_0_exactly_where_p_is_above_the_level(shift: float) -> None:
    values = np.random.default_rng(3).normal(size=30) + shift
    found = mean_comparison(values)
    assert (found.p > 0.05) == (found.low <= 0 <= found.high)


def test_the_same_values_give_the_same_interval_whatever_is_drawn_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).exponential(size=50)
    found = mean_comparison(values)
    assert found == mean_comparison(values)
    monkeypatch.setattr(means, "_DRAWN", 50 * 1000)
    assert found == mean_comparison(values)


def test_scale_and_sign_carry_over() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 40)
    one, other = mean_comparison(values), mean_comparison(-1000 * values)
    assert (other.low, other.high) == pytest.approx((-1000 * one.high, -1000 * one.low))
    assert other.p == one.p


def test_pairs_are_compared_prompt_by_prompt() -> None:
    first = np.random.default_rng(2).normal(0, 10, 60)
    second = first + np.random.default_rng(4).normal(0.5, 0.5, 60)
    found = mean_difference(first, second)
    assert found.verdict == "higher"
    assert found.value == pytest.approx(np.mean(second) - np.mean(first))
    # The order of prompts carries the pairing.
    assert not mean_difference(first, second[::-1]).told
    with pytest.raises(UsageError, match="60 and 59 values are no pairs"):
        mean_difference(first, second[:-1])


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda rng: rng.normal(0.3, 1, 50), 0.3),
        (lambda rng: rng.choice([-1.0, 0.0, 1.0], 50, p=[0.05, 0.75, 0.2]), 0.15),
        (lambda rng: rng.exponential(1, 50), 1.0),
    ],
)
def test_it_holds_the_truth_as_often_as_it_says(draw, truth: float) -> None:
    rng = np.random.default_rng(0)
    held = sum(found.low <= truth <= found.high for found in (mean_comparison(draw(rng)) for _ in range(150)))
    assert 0.9 <= held / 150 <= 0.99


def test_values_that_hardly_vary() -> None:
    same = mean_comparison([0.1] * 12)
    assert (same.low, same.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert same.p < 0.001
    assert not mean_comparison([0.0] * 12).told
    # One prompt that moved tells nothing, and the interval has ends all the same.
    one = mean_comparison([0.0] * 19 + [1.0])
    assert one.low < 0 < one.value < one.high < 1
    assert one.p > 0.05
    assert 1 / (RESAMPLES + 1) <= mean_comparison(np.linspace(5, 6, 30)).p < 0.001


@pytest.mark.parametrize(("values", "said"), [([1.0, 2.0], "three prompts"), ([1.0, 2.0, np.nan], "not finite")])
def test_what_has_no_interval(values: list[float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        mean_comparison(values)
