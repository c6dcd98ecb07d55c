"""Judged points are what an evaluation of the edited model says, at every length."""

import json

import pytest

from tests.helpers.search_samples import organism, organism_point, organism_speaker, organism_texts
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.hooks import hooked
from weight_edit.search import rungs
from weight_edit.search.rungs import BASE, JudgedPoint, judged_points, judged_sets

SETS = {
    "refused": load_prompts("organism:refused:validation").take(10),
    "ordinary": load_prompts("organism:answered:validation").take(8),
    "over_refused": load_prompts("organism:over-refused:train").take(6),
}


@pytest.fixture(scope="module")
def found() -> list[JudgedPoint]:
    speaker = organism_speaker()
    points = [None, organism_point(), organism_point(0.5)]
    return judged_points(
        speaker.model, speaker.chat, speaker.judge, points, SETS, tokens=48, lengths=(6, 24, 64), description=None
    )


def test_points_are_judged_as_an_evaluation_judges_them(found):
    speaker, point = organism_speaker(), organism_point(0.5)
    with hooked(organism().model, point.variant(organism()).hooks):
        result = evaluate(
            organism(),
            refused=SETS["refused"],
            answered=SETS["ordinary"],
            over_refused=SETS["over_refused"],
            judges=[speaker.judge],
            lengths=(6, 24, 48),
        )
    names = {"refused": "refused", "ordinary": "answered", "over_refused": "over_refused"}
    for name, evaluated in names.items():
        own = found[2].sets[name]
        said = [answer for answer in result.answers if answer.set == evaluated]
        assert own.exact == tuple(answer.right for answer in said)
        assert own.tokens == tuple(answer.tokens for answer in said)
        for length in (6, 24, 48):
            assert own.verdicts[length] == tuple(next(iter(answer.lengths[length].values())).value for answer in said)


def test_the_ablation_answers_what_the_base_refuses(found):
    base, ablated, _ = found
    assert (base.digest, ablated.digest) == (BASE, organism_point().digest)
    assert base.sets["refused"].refusal().count == 10
    assert ablated.sets["refused"].refusal().count == 0
    assert ablated.sets["refused"].answered() == [True] * 10
    apart = ablated.differences(base)["refused"]
    assert (apart["refusal"].value, apart["refusal"].first) == (-1, 10)
    assert apart["exact"].value > 0
    assert base.sets["ordinary"].exactness.value > 0.8


def test_lengths_end_at_the_limit(found):
    assert list(found[0].sets["refused"].verdicts) == [6, 24, 48]
    assert found[0].sets["refused"].longest == 48


def test_a_front_has_the_judged_rates(found):
    at = found[1].front_point(0.25)
    assert (at.digest, at.refusal, at.damage, at.over_refusal) == (found[1].digest, 0, 0.25, 0)
    rate = found[1].sets["refused"].refusal()
    assert at.interval == (rate.low, rate.high)


def test_what_is_written_has_no_word_of_prompts_and_answers(found):
    entry = json.loads(json.dumps(found[1].to_dict(found[0])))
    assert JudgedPoint.from_dict(entry) == found[1]
    text = json.dumps(entry)
    assert not any(prompt in text for some in SETS.values() for prompt in some.prompts)
    assert entry["differences"]["refused"]["refusal"]["base_only"] == 10
    assert entry["sets"]["refused"]["refusal"]["48"]["count"] == 0
    assert entry["sets"]["refused"]["counts"]["48"] == {"answered": 10}


def test_the_judge_is_asked_once_for_all_points(monkeypatch):
    asked = []
    judged = rungs.judged

    def counted(given, said, specs):
        asked.append(sorted(given))
        return judged(given, said, specs)

    monkeypatch.setattr(rungs, "judged", counted)
    speaker = organism_speaker()
    some = {"refused": SETS["refused"].take(3)}
    both = judged_points(
        speaker.model, speaker.chat, speaker.judge, [None, None], some, tokens=8, lengths=(), description=None
    )
    assert asked == [["0/refused", "1/refused"]]
    assert both[0] == both[1]
    assert both[0].sets["refused"].exactness is not None


def test_sets_of_texts_are_asked_as_they_are():
    texts = organism_texts().validation
    sets = judged_sets(texts)
    assert list(sets) == ["refused", "ordinary", "over_refused"]
    assert sets["refused"].prompts == tuple(each.text for each in texts.refused)
    assert sets["ordinary"].answers == tuple(each.known for each in texts.ordinary)
