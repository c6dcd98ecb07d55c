"""A choice is confirmed by judged answers: what does nothing says so, and the next that works is taken."""

import pytest

from weight_edit.directions import judged_answers
from weight_edit.directions.confirmation import Confirmation
from weight_edit.directions.find import find_directions
from weight_edit.directions.scores import CandidateScore
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.load import load_prompts

SIZES = {"n_train": 24, "n_validation": 12, "positions": "last", "n_more": 0}
TABLE = [CandidateScore(position=-1, layer=layer, bypass=0.0, induce=None, kl=0.0, norm=1.0) for layer in range(3)]


def verdicts(refused: int, others: str = "answered", count: int = 12) -> list[Verdict]:
    return [Verdict.REFUSED] * refused + [Verdict(others)] * (count - refused)


def confirmation(base: int, *edited: list[Verdict], by: str = "ablate") -> Confirmation:
    return Confirmation(by=by, judge="phrases", base=verdicts(base), edited=dict(enumerate(edited)))


def test_the_choice_of_the_scores_is_taken_where_it_works():
    found = confirmation(12, verdicts(2), verdicts(0))
    assert (found.taken, found.warnings(TABLE), found.failure) == (0, [], None)


def test_the_next_that_works_is_taken_where_the_chosen_one_does_not_and_that_is_said():
    found = confirmation(12, verdicts(11), verdicts(9), verdicts(1))
    assert found.taken == 2
    first, second = found.warnings(TABLE)
    assert "layer 0, position -1, does not lower refusal" in first
    assert "refuse 12 of 12 without the edit and 11 with it" in first
    assert "taken in its place: layer 2, position -1, 1 of 12 refused" in second
    assert found.failure is None
    assert [row["taken"] for row in found.to_dict(TABLE)["candidates"]] == [False, False, True]


def test_where_none_works_the_choice_stays_and_the_failure_is_recorded():
    found = confirmation(3, verdicts(0), verdicts(1))
    assert found.taken == 0
    assert "neither do the 1 next best" in found.warnings(TABLE)[1]
    assert found.failure == "3 of 12 refused without the edit and 0 with it (p = 0.25, judge phrases)"


def test_refusal_may_have_to_rise():
    assert not confirmation(0, verdicts(12)).works(0)
    assert confirmation(0, verdicts(12), by="add").works(0)
    lower = confirmation(12, verdicts(0), by="add")
    assert not lower.works(0)
    assert "does not raise refusal" in lower.warnings(TABLE)[0]
    assert "moved the other way" in lower.warnings(TABLE)[0]


def test_broken_answers_are_no_success_without_a_word():
    (said,) = confirmation(12, verdicts(0, "looping")).warnings(TABLE)
    assert "12 of 12 answers" in said
    assert "may be damage" in said


@pytest.fixture(scope="module")
def sets():
    return load_prompts("organism:refused:train"), load_prompts("organism:answered:train")


def test_the_model_is_asked_under_the_edits_of_the_best_and_not_twice(organism, sets, tmp_path, monkeypatch):
    given = {**SIZES, "rule": SelectionRule(max_kl=None, min_induce=None), "scores": tmp_path / "d.find"}
    before = find_directions(organism, *sets, **given)
    assert before.metadata["confirmation"] is None
    original, asked = judged_answers.generate, []
    monkeypatch.setattr(
        judged_answers,
        "generate",
        lambda model, prompts, **o: asked.append(len(prompts)) or original(model, prompts, **o),
    )
    found = find_directions(organism, *sets, confirm=8, resume=True, **given)
    assert asked == [8] * 4
    said = found.metadata["confirmation"]
    assert (said["base"]["refusal"]["count"], said["count"]) == (8, 8)
    best = said["candidates"][0]
    assert (best["layer"], best["works"], best["taken"]) == (before.metadata["layer"], True, True)
    assert best["refusal"]["count"] == 0
    assert found.metadata["unconfirmed"] is None
    monkeypatch.setattr(judged_answers, "generate", None)
    assert find_directions(organism, *sets, confirm=8, resume=True, **given).metadata == found.metadata


def test_an_addition_is_confirmed_on_ordinary_requests(organism, sets):
    said = find_directions(organism, *sets, confirm=8, confirm_by="add", **SIZES).metadata["confirmation"]
    assert said["base"]["refusal"]["count"] == 0
    assert said["candidates"][0]["refusal"]["count"] >= 6
    assert said["candidates"][0]["works"]


def test_a_random_direction_is_found_to_do_nothing(organism, sets):
    rule = SelectionRule(max_kl=None, min_induce=None)
    record = find_directions(organism, *sets, method="random", confirm=8, rule=rule, **SIZES).metadata
    assert record["unconfirmed"].startswith("8 of 8 refused without the edit and 8 with it")
    assert any("does not lower refusal" in warning for warning in record["warnings"])


@pytest.mark.parametrize(
    ("option", "message"),
    [({"confirm": 6}, "`confirm=6`: must be at least 7"), ({"confirm_by": "addd"}, "did you mean 'add'")],
)
def test_wrong_settings_are_refused(organism, sets, option, message):
    with pytest.raises(UsageError, match=message):
        find_directions(organism, *sets, **SIZES, **option)


def test_where_none_keeps_the_bounds_the_nearest_are_confirmed(organism, sets):
    rule = SelectionRule(max_kl=1e-9)
    record = find_directions(organism, *sets, confirm=8, rule=rule, best_effort=True, **SIZES).metadata
    rows = record["confirmation"]["candidates"]
    assert len({row["layer"] for row in rows}) == 3
    assert rows[0]["taken"]
    assert rows[0]["layer"] == record["layer"]
