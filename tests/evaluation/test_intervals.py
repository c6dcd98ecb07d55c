"""Wilson's intervals are the published ones."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.errors import UsageError
from weight_edit.evaluation.intervals import Rate


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Newcombe (1998), Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(count, total, low, high):
    rate = Rate(count, total)
    assert rate.low == pytest.approx(low, abs=5e-5)
    assert rate.high == pytest.approx(high, abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_holds_the_rate_and_mirrors(pair):
    count, total = pair
    rate, other = Rate(count, total), Rate(total - count, total)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.low == pytest.approx(1 - other.high, abs=1e-12)


def test_over_nothing_is_an_error():
    with pytest.raises(UsageError, match="a rate over zero prompts"):
        Rate(0, 0)


@pytest.mark.parametrize(("count", "total"), [(-1, 3), (4, 3), (1, -1)])
def test_impossible_counts(count, total):
    with pytest.raises(ValueError, match="a rate of"):
        Rate(count, total)


def test_as_json_and_text():
    assert json.loads(json.dumps(Rate(1, 2).to_dict()))["value"] == 0.5
    assert str(Rate(1, 2)) == "0.500 [0.095, 0.905]"
