"""Differences of rates on the same prompts: a published interval, symmetry, coverage, and what `evaluate` shows."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from weight_edit.errors import UsageError
from weight_edit.evaluation.answers import Answer, load_answers, write_answers
from weight_edit.evaluation.comparisons import UNTOLD
from weight_edit.evaluation.differences import PairedDifference, differences, differences_document, paired_difference
from weight_edit.evaluation.figures import untold
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.paired_answers import continuation_document
from weight_edit.evaluation.verdicts import Verdict


def test_the_published_example() -> None:
    """Airway reactivity of 21 children (Fagerland, Lydersen and Laake 2014): Tango's interval, the exact p value."""
    found = PairedDifference(both=1, first=1, second=7, neither=12)
    assert found.value == pytest.approx(0.286, abs=5e-4)
    assert (found.low, found.high) == pytest.approx((0.026, 0.517), abs=5e-4)
    assert found.p == pytest.approx(0.070, abs=5e-4)
    assert found.comparison.verdict == UNTOLD


def test_the_ends_are_the_differences_that_the_score_test_just_bears() -> None:
    """With q the share of first alone that makes the counts most probable, found by trying them all."""
    both, first, second, neither = 13, 6, 1, 12
    n, found = 32, PairedDifference(both, first, second, neither)
    for end in (found.low, found.high):
        shares = np.linspace(max(0, -end) + 1e-9, min(1, 1 - end) / 2 - 1e-9, 400_001)
        likely = first * np.log(shares) + second * np.log(shares + end)
        likely += (both + neither) * np.log1p(-2 * shares - end)
        q = shares[np.nanargmax(likely)]
        score = (second - first - n * end) / np.sqrt(n * (2 * q + end - end**2))
        assert abs(score) == pytest.approx(1.959964, abs=1e-3)


@pytest.mark.parametrize("counts", [(50, 0, 0, 0), (0, 0, 0, 50)])
def test_where_no_prompt_differs_the_ends_are_those_of_one_rate(counts: tuple[int, int, int, int]) -> None:
    found = PairedDifference(*counts)
    assert (found.low, found.high) == pytest.approx((-Rate(0, 50).high, Rate(0, 50).high))


def test_what_can_be_told_is_in_the_document() -> None:
    found, untold = PairedDifference(20, 10, 0, 20).to_dict(), PairedDifference(20, 5, 0, 20).to_dict()
    assert (found["told"], untold["told"]) == (True, False)
    assert (found["p"], untold["p"]) == pytest.approx((2 / 2**10, 2 / 2**5))
    assert json.loads(json.dumps(found))["base_only"] == 10


def test_outcomes_are_paired_in_their_order() -> None:
    found = paired_difference([True, True, False, False], [True, False, True, False])
    assert found == PairedDifference(1, 1, 1, 1)
    with pytest.raises(UsageError, match="are no pairs"):
        paired_difference([True], [])


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


def test_the_divergence_along_refusals_stands_apart() -> None:
    verdicts = [Verdict.ANSWERED, Verdict.REFUSED, Verdict.LOOPING, Verdict.REFUSED, Verdict.ANSWERED]
    base = [dataclasses.replace(answer(str(row), each), set="answered") for row, each in enumerate(verdicts)]
    other = [answer("of another set", Verdict.REFUSED)]
    found = continuation_document([*other, *base], [0.1, 2.0, 0.3, 4.0, 0.2])["continuation_by_base"]
    assert {name: (each["count"], each["mean"]) for name, each in found.items()} == {
        "answered": (3, pytest.approx(0.2)),
        "refused": (2, pytest.approx(3.0)),
    }
    assert found["answered"]["low"] < 0.2 < found["answered"]["high"]
    assert found["refused"]["low"] is None
    # The same figure twice would be none.
    assert continuation_document(base[:1], [0.1]) == continuation_document(base[1:2], [0.1]) == {}


def test_answers_come_back_from_their_file(tmp_path: Path) -> None:
    """A run keeps its base's answers in a file alone, and compares them with the edited model's."""
    base = [answer("a\u2028b", Verdict.REFUSED, said="I\u2028am sorry."), answer("c", Verdict.ANSWERED, expected="yes")]
    edited = [dataclasses.replace(one, verdict=Verdict.ANSWERED) for one in base]
    write_answers(tmp_path / "base.jsonl", base)
    found = differences(load_answers(tmp_path / "base.jsonl"), edited)
    assert differences_document(found) == differences_document(differences(base, edited))
    assert found["refused"]["refusal"].first == 1
    (tmp_path / "base.jsonl").write_text('{"answer": "a"}\n', encoding="utf-8")
    with pytest.raises(UsageError, match="no file of answers"):
        load_answers(tmp_path / "base.jsonl")


def test_rates_whose_difference_may_be_chance_are_named() -> None:
    documents = {"refused": {"refusal": {"told": False}, "exact": {"told": True}}, "answered": {"refusal": {}}}
    assert untold({"differences": documents}) == ["refusal of refused requests"]
    assert untold({"sets": {}}) == []
