"""Kendall's tau-b is scipy's, its interval is told, and a search that cannot rank says so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from weight_edit.search.ranking import ENOUGH, Tau, kendall

FIGURES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=25)


@settings(max_examples=150, deadline=None)
@given(FIGURES)
def test_the_value_is_that_of_scipy(pairs):
    x, y = zip(*pairs, strict=True)
    found, reference = kendall(x, y), kendalltau(x, y, variant="b").statistic
    if np.isnan(reference):
        assert found.value is None
        assert "all " in found.undefined
    else:
        assert found.value == pytest.approx(reference, abs=1e-12)
        assert -1 <= found.low <= found.value <= found.high <= 1


def test_ties_are_counted():
    found = kendall([1, 1, 2, 3], [0.5, 0.5, 0.5, 1.0])
    assert (found.ties_first, found.ties_second, found.n) == (1, 3, 4)


def test_the_interval_narrows_with_candidates_and_does_not_change():
    generator = np.random.default_rng(3)
    x = generator.normal(size=200)
    y = x + generator.normal(size=200)
    few, many = kendall(x[:30], y[:30]), kendall(x, y)
    assert many.high - many.low < few.high - few.low
    assert kendall(x, y) == many


def test_the_interval_holds_the_true_tau_in_most_samples():
    # Of a bivariate normal with correlation r it is 2 / pi arcsin r.
    generator, held = np.random.default_rng(0), 0
    for _ in range(100):
        x = generator.normal(size=30)
        found = kendall(x, 0.8 * x + 0.6 * generator.normal(size=30))
        held += found.low <= 2 / np.pi * np.arcsin(0.8) <= found.high
    assert 88 <= held <= 100


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ([1, 2, 3], [1.0, 1.0, 1.0], "all judged rates are equal (1)"),
        ([2, 2, 2], [0.1, 0.2, 0.3], "all cheap scores are equal (2)"),
        ([1, 2], [0.1, 0.2], "2 candidates have no ranking"),
        ([], [], "0 candidates have no ranking"),
    ],
)
def test_where_there_is_no_tau_the_reason_is_named(first, second, said):
    found = kendall(first, second)
    assert (found.value, found.low, found.high, found.undefined) == (None, None, None, said)
    assert found.verdict == "cannot be told"
    assert found.sentence.endswith(said)


def tau(value, low, high, n=40):
    return Tau(value=value, low=low, high=high, n=n, ties_first=0, ties_second=0)


@pytest.mark.parametrize(
    ("found", "verdict", "said"),
    [
        (tau(0.9, 0.8, 0.95), "well", "ranks well: tau 0.90 [0.80, 0.95] on 40 candidates"),
        (tau(0.4, 0.2, 0.6), "poorly", "ranks poorly: tau 0.40 [0.20, 0.60] on 40 candidates; trust judged points"),
        (tau(0.1, -0.2, 0.4), "poorly", "no order that chance alone does not give"),
        (tau(0.75, 0.6, 0.9), "cannot be told", "cannot be told: tau 0.75"),
        (tau(1.0, 1.0, 1.0, ENOUGH - 1), "cannot be told", "of so few candidates"),
    ],
)
def test_the_sentence_goes_by_the_interval(found, verdict, said):
    assert found.verdict == verdict
    assert said in found.sentence
    assert found.to_dict()["verdict"] == verdict


def test_figures_that_are_no_pairs_are_refused():
    with pytest.raises(ValueError, match="no pairs"):
        kendall([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="not finite"):
        kendall([1, 2, float("nan")], [1, 2, 3])
