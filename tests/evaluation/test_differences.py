"""Differences of rates on the same prompts: a published interval, symmetry, coverage, and what `evaluate` shows."""

import dataclasses

import numpy as np
import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation.differences import PairedDifference, differences
from weight_edit.evaluation.evaluate import Answer
from weight_edit.evaluation.verdicts import Verdict


def test_the_published_example() -> None:
    """Newcombe 1998, method 10: 36 and 12 and 2 and none of 50 pairs."""
    found = PairedDifference(both=36, first=2, second=12, neither=0)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_the_other_way_round_is_the_negative() -> None:
    one, other = PairedDifference(13, 1, 6, 12), PairedDifference(13, 6, 1, 12)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))


@pytest.mark.parametrize("counts", [(50, 0, 0, 0), (0, 30, 0, 0), (0, 0, 7, 0), (0, 0, 0, 1), (20, 0, 0, 20)])
def test_it_stays_within_bounds_and_has_a_width_at_the_ends(counts: tuple[int, int, int, int]) -> None:
    found = PairedDifference(*counts)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.high - found.low > 0.01


@pytest.mark.parametrize("shares", [(0.6, 0.25, 0.05, 0.1), (0.02, 0.9, 0.01, 0.07), (0.3, 0.2, 0.2, 0.3)])
def test_it_holds_the_truth_as_often_as_it_says(shares: tuple[float, ...]) -> None:
    generator = np.random.default_rng(0)
    truth = shares[2] - shares[1]
    held = 0
    for counts in generator.multinomial(60, shares, size=2000):
        found = PairedDifference(*map(int, counts))
        held += found.low <= truth <= found.high
    assert 0.925 <= held / 2000 <= 0.985


def test_pairs_narrow_the_interval() -> None:
    """The same rates: where the models agree prompt by prompt, more is known of the difference."""
    alike, apart = PairedDifference(30, 5, 0, 25), PairedDifference(13, 22, 17, 8)
    assert alike.value == apart.value
    assert alike.high - alike.low < 0.7 * (apart.high - apart.low)


def test_no_prompts_are_no_difference() -> None:
    with pytest.raises(UsageError, match="zero prompts"):
        PairedDifference(0, 0, 0, 0)


def answer(prompt: str, verdict: Verdict, said: str = "yes", expected: str | None = None) -> Answer:
    return Answer(
        set="refused", prompt=prompt, answer=said, expected=expected, verdict=verdict, category=None, finished=True
    )


def test_answers_are_paired_by_prompt() -> None:
    base = [answer("a", Verdict.REFUSED), answer("b", Verdict.REFUSED, expected="yes"), answer("c", Verdict.ANSWERED)]
    edited = [dataclasses.replace(one, verdict=Verdict.ANSWERED) for one in base]
    edited[1] = dataclasses.replace(edited[1], answer="no")
    found = differences(base, edited)["refused"]
    assert (found["refusal"].first, found["refusal"].neither) == (2, 1)
    assert found["exact"].value == -1.0
    with pytest.raises(UsageError, match="different prompts"):
        differences(base, edited[::-1])
    with pytest.raises(UsageError, match="different prompts"):
        differences(base, edited[:2])
