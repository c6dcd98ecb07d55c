"""Answers under an edit, judged at several lengths."""

import pytest

from tests.helpers.search_samples import organism_point, organism_prompts, organism_speaker
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.runtime.generation import Generation
from weight_edit.search.judged_point import JudgedPoint, judged_answers
from weight_edit.search.own_texts import made_texts


@pytest.fixture(scope="module")
def texts():
    made = made_texts(
        organism_speaker(), organism_prompts(), organism_point(), n_train=12, n_validation=8, known_answers=True
    )
    return made.validation


def test_an_ablation_answers_what_was_refused_and_a_weak_one_does_not(texts):
    speaker = organism_speaker()
    full = judged_answers(speaker, organism_point(), texts, lengths=(16, 64))
    weak = judged_answers(speaker, organism_point(0.05), texts, lengths=(16, 64))
    assert full.lengths == (16, 64)
    assert len(full.refused[64]) == len(texts.refused) > 3
    assert full.refusal.count == 0
    assert full.exact("refused").value > 0.5
    assert full.exact("ordinary").value > 0.8
    assert weak.refusal.value == 1.0
    assert weak.exact("refused").count == 0
    assert weak.ordinary_refusal.count == 0
    assert (full.over_refusal is None) == (not texts.over_refused)
    assert JudgedPoint.from_dict(full.to_dict()) == full


def test_a_length_is_judged_as_an_answer_that_was_generated_no_longer(texts):
    speaker = organism_speaker()
    both = judged_answers(speaker, organism_point(0.6), texts, lengths=(6, 64))
    short = judged_answers(speaker, organism_point(0.6), texts, lengths=(6,))
    assert both.refused[6] == short.refused[6]
    assert both.ordinary[6] == short.ordinary[6]
    assert both.refusal_at(6) == short.refusal


def test_an_answer_is_heard_to_the_token_it_is_cut_at():
    speaker = organism_speaker()
    tokens = tuple(speaker.chat.tokenizer.encode("a b c", add_special_tokens=False))
    said = Generation(text="", tokens=tokens, finished=False)
    (whole,), (cut,) = speaker.heard([said], ["?"]), speaker.heard([said], ["?"], tokens=1)
    assert whole.text.startswith(cut.text)
    assert len(cut.text) < len(whole.text)
    assert cut.verdict in Verdict
