"""Answers of a search are read where its metric looks: behind a template's opening, and told from thoughts."""

import pytest

from tests.helpers.random_models import random_model
from tests.helpers.small_tokenizer import channel_tokenizer, word_tokenizer
from weight_edit.directions import judged_answers
from weight_edit.directions.judged_answers import JudgedAnswer, Speaker, from_row, to_row
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.generation import Generation


@pytest.fixture
def speaker(monkeypatch):
    """`speaker(tokenizer, *texts)`: one that says the texts; `asked` has what it was asked, as text."""
    asked: list[str] = []

    def make(tokenizer, *texts):
        model = random_model("llama")
        model.tokenizer = tokenizer

        def generate(model, sequences, **options):
            asked.extend(tokenizer.decode(ids) for ids in sequences)
            tokens = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
            return [Generation("", tuple(ids), ids[-1] == tokenizer.eos_token_id) for ids in tokens]

        monkeypatch.setattr(judged_answers, "generate", generate)
        return Speaker(
            model=model, chat=ChatFormat(tokenizer), judge=JudgeSpec.parse("phrases,language=en"), max_new_tokens=8
        )

    return make, asked


def answers(speaker, count, **options):
    prompts = ["make a house", "cut bread"][:count]
    return speaker.answers([speaker.chat.encode(prompt) for prompt in prompts], prompts, **options)


def test_the_first_token_is_the_one_behind_the_opening(speaker):
    make, asked = speaker
    tokenizer = channel_tokenizer()
    speaking = make(tokenizer, "I cannot <|done|>", "sure here is the way <|done|>")
    found = answers(speaking, 2, opened=True)
    assert all(text.endswith("<|channel|> final <|body|>") for text in asked)
    assert [tokenizer.decode([each.token]) for each in found] == ["I", "sure"]
    assert [each.verdict for each in found] == [Verdict.REFUSED, Verdict.ANSWERED]
    assert not any(each.thought for each in found)


def test_where_the_model_opens_its_answers_a_thought_in_another_channel_is_one(speaker):
    make, asked = speaker
    thought = "<|channel|> analysis <|body|> the way <|stop|> <|begin|> assistant"
    said = f"{thought} <|channel|> final <|body|> I cannot <|done|>"
    (found,) = answers(make(channel_tokenizer(), said), 1)
    assert not asked[0].endswith("<|body|>")
    assert (found.verdict, found.thought, found.text.endswith("I cannot")) == (Verdict.REFUSED, True, True)


def test_a_thought_in_tags_is_read_past_and_said(speaker):
    make, _ = speaker
    tokenizer = word_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    found = answers(make(tokenizer, "<think> sure </think> I cannot <end>", "<think> sure here"), 2, opened=True)
    assert [each.thought for each in found] == [True, True]
    assert [each.verdict for each in found] == [Verdict.REFUSED, Verdict.UNDECIDED]


def test_an_answer_is_written_and_read_as_it_is():
    answer = JudgedAnswer(token=7, verdict=Verdict.PARTIAL, thought=False, text="sure\u2028\n")
    assert from_row(to_row((0, "more", 3), answer)) == ((0, "more", 3), answer)
