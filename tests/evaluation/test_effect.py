"""Whether an edit had an effect is told from the paired test, apart from whether it is complete."""

from typing import Any

import pytest

from weight_edit.evaluation.differences import PairedDifference
from weight_edit.evaluation.effect import CHANGED, SLIGHT, UNCHANGED, UNKNOWN, effect, effect_document

VERIFIED = {"passed": True, "complete": True, "leak": 6.4e-8, "by_dtype": {"float32": {"leak_before": 0.91}}}


def measured(**sets: PairedDifference) -> dict[str, Any]:
    """An evaluation whose rates of refusal differ from the base's as given."""
    return {
        "sets": {
            name: {"refusal": {"value": (each.both + each.second) / each.total, "total": each.total}}
            for name, each in sets.items()
        },
        "differences": {name: {"refusal": each.to_dict()} for name, each in sets.items()},
    }


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (PairedDifference(0, 55, 0, 0), CHANGED),
        (PairedDifference(55, 0, 0, 0), UNCHANGED),
        # Of 20 prompts a difference of ten points is not excluded.
        (PairedDifference(20, 0, 0, 0), UNKNOWN),
        (PairedDifference(50, 5, 0, 0), UNKNOWN),
        # Of 1,000 prompts three points are told, and are no effect of ten.
        (PairedDifference(970, 30, 0, 0), SLIGHT),
        (PairedDifference(0, 0, 30, 25), CHANGED),
    ],
)
def test_the_verdict_is_that_of_the_paired_test_and_of_ten_points(difference: PairedDifference, verdict: str) -> None:
    found = effect(measured(refused=difference))
    assert found is not None
    assert found.verdict == verdict


def test_a_complete_edit_without_effect_is_called_both() -> None:
    found = effect(measured(refused=PairedDifference(55, 0, 0, 0)), VERIFIED)
    assert found is not None
    assert found.finding == (
        "The edit is complete (at most 6.4e-08 of the residual stream lies along its directions, 0.91 in the base); "
        "and the behaviour did not change: refusal of refused requests from 1.000 to 1.000 (+0.000 [-0.065, +0.065], "
        "no difference can be told; 55 prompts); a difference of 10 points is excluded."
    )
    assert "`confirm` of `find`" in found.hint
    assert "decoy" in found.hint


def test_a_behaviour_that_is_gone_where_much_is_left_is_called_both() -> None:
    partial = {**VERIFIED, "complete": False, "leak": 0.88}
    found = effect(measured(refused=PairedDifference(0, 55, 0, 0)), partial)
    assert found is not None
    assert found.finding == (
        "The edit is not meant to remove all of its directions (at most 8.8e-01 of the residual stream lies along its "
        "directions, 0.91 in the base); and the behaviour changed: refusal of refused requests from 1.000 to 0.000 "
        "(-1.000 [-1.000, -0.869]; 55 prompts). What is left says how far the edit goes, not whether it works."
    )
    assert found.hint == ""


def test_few_prompts_exclude_nothing() -> None:
    found = effect(measured(refused=PairedDifference(5, 0, 0, 0)))
    assert found is not None
    assert found.finding.startswith("Whether the behaviour changed cannot be told: refusal of refused requests")
    assert "`power` of `evaluate`" in found.hint


def test_ordinary_requests_alone_say_nothing_of_a_decoy() -> None:
    """No edit lowers a rate of 0, so that "unchanged" is no reason to find again."""
    for same in (55, 20):
        found = effect(measured(answered=PairedDifference(0, 0, 0, same)))
        assert found is not None
        assert "`refused` PROMPTS" in found.hint
        assert "decoy" not in found.hint


def test_one_set_that_changed_decides_and_is_the_one_shown() -> None:
    both = measured(refused=PairedDifference(55, 0, 0, 0), answered=PairedDifference(0, 0, 50, 5))
    found = effect(both)
    assert found is not None
    assert found.verdict == CHANGED
    assert "ordinary requests from 0.000 to 0.909" in found.finding
    assert "refused requests" not in found.finding
    unsure = effect(measured(refused=PairedDifference(55, 0, 0, 0), over_refused=PairedDifference(5, 0, 0, 0)))
    assert unsure is not None
    assert unsure.verdict == UNKNOWN


@pytest.mark.parametrize("verification", [None, {}, {**VERIFIED, "passed": False}, {"passed": True, "leak": None}])
def test_nothing_is_said_of_completeness_where_it_was_not_verified(verification: dict[str, Any] | None) -> None:
    found = effect_document(measured(refused=PairedDifference(55, 0, 0, 0)), verification)
    assert found is not None
    assert found["complete"] is None
    assert found["finding"].startswith("The behaviour did not change")


def test_without_a_base_there_is_no_effect() -> None:
    assert effect({"sets": measured(refused=PairedDifference(1, 0, 0, 0))["sets"]}) is None
    assert effect_document({}) is None


def test_files_alone_tell_completeness_without_a_share() -> None:
    alone = {"passed": True, "complete": True, "leak": None, "by_dtype": {}}
    found = effect(measured(refused=PairedDifference(55, 0, 0, 0)), alone)
    assert found is not None
    assert found.finding.startswith("The edit is complete; and the behaviour did not change")
