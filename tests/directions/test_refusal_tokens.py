"""Refusal tokens are those that open judged refusals and not other answers; where answers tell none, it is said."""

from dataclasses import dataclass, field

import pytest

from tests.helpers.direction_samples import sample
from weight_edit.directions.judged_answers import JudgedAnswer
from weight_edit.directions.refusal_tokens import opening_tokens, tokens_of_answers
from weight_edit.errors import UsageError
from weight_edit.evaluation.verdicts import Verdict

SELF, SORRY, TO, SURE = 1, 2, 3, 4


def said(token: int, verdict: str, count: int = 1, thought: bool = False) -> list[JudgedAnswer]:
    return [JudgedAnswer(token=token, verdict=Verdict(verdict), thought=thought, text="")] * count


@dataclass
class Told:
    """Answers in the order in which they are asked for, in place of a model's."""

    by_sample: list[list[JudgedAnswer]]
    asked: list[tuple[int, int]] = field(default_factory=list)

    @property
    def samples(self):
        return [sample(str(n), [[0]] * len(some)) for n, some in enumerate(self.by_sample)]

    def order(self, number):
        return list(range(len(self.by_sample[number])))

    def of(self, number, part, numbers):
        assert part == "train"
        self.asked.append((number, len(numbers)))
        return [self.by_sample[number][n] for n in numbers]


def test_what_opens_refusals_and_not_other_answers():
    answers = [
        *said(SELF, "refused", 12),
        *said(SORRY, "refused", 2),
        *said(SELF, "answered"),
        *said(SURE, "answered", 49),
    ]
    found = opening_tokens(answers)
    assert [each.id for each in found] == [SELF, SORRY]
    assert found[0].to_dict()["opens"] == {"refusals": 12, "of_refusals": 14, "others": 1, "of_others": 50}


def test_a_token_that_opens_other_answers_too_is_none():
    answers = [
        *said(SELF, "refused", 10),
        *said(TO, "refused", 2),
        *said(TO, "answered", 5),
        *said(SURE, "answered", 45),
    ]
    assert [each.id for each in opening_tokens(answers)] == [SELF]
    assert opening_tokens([*said(SELF, "refused", 10), *said(SELF, "answered", 20), *said(SURE, "answered", 30)]) == []


def test_the_rarest_openings_are_left_out_and_answers_without_a_decision_count_nowhere():
    answers = [*said(SELF, "refused", 18), *said(SORRY, "refused"), *said(TO, "refused")]
    nothing = [*said(SELF, "empty", 30), *said(SELF, "undecided", 30)]
    found = opening_tokens([*answers, *nothing, *said(SURE, "answered", 20)])
    assert [each.id for each in found] == [SELF]
    assert (found[0].all_refusals, found[0].all_others) == (20, 20)


def test_more_target_prompts_are_asked_until_enough_refusals_are_heard():
    target = [*said(SURE, "answered", 6), *said(SELF, "refused", 30)]
    told = Told([target, said(SURE, "answered", 40)])
    tokens, heard = tokens_of_answers(told, 8)
    assert [each.id for each in tokens] == [SELF]
    assert heard == {"target": {"judged": 16, "refused": 10}, "baseline": {"judged": 8, "refused": 0}}
    assert told.asked == [(1, 8), (0, 8), (0, 16)]


@pytest.mark.parametrize(
    ("target", "baseline", "message"),
    [
        (
            [*said(SELF, "refused", 3), *said(SURE, "answered", 29)],
            said(SURE, "answered", 32),
            r"3 refusals in 32 .* 0 in 32",
        ),
        (said(SELF, "refused", 16), said(SELF, "refused", 16), "cannot be told apart by refusal"),
        ([*said(SELF, "refused", 16)], said(SELF, "answered", 16), "open with the tokens of other answers"),
        (said(SELF, "refused", 16, True), said(SURE, "answered", 16, True), "32 of 32 answers begin with a thought"),
    ],
)
def test_where_answers_tell_no_tokens_it_is_said_with_what_can_be_done(target, baseline, message):
    with pytest.raises(UsageError, match=message) as caught:
        tokens_of_answers(Told([target, baseline]), 32)
    assert "`select=cosmic`" in str(caught.value)
    assert "select" in caught.value.options
