"""What a model wrote, as an answer: in templates that open answers with special tokens, and in others."""

import pytest

from tests.helpers.judging import verdict_of
from tests.helpers.small_tokenizer import channel_tokenizer, musing_tokenizer, response_tokenizer, word_tokenizer
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.answers import answer_text
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.thoughts import split_thought

THINKS = "<|channel|> analysis <|body|> here is the way <|stop|> <|begin|> assistant "
ANSWERS = "<|channel|> final <|body|> "


@pytest.mark.parametrize(
    ("make", "written", "answer", "thought", "verdict"),
    [
        (channel_tokenizer, f"{THINKS}{ANSWERS}sure here is <|done|>", "sure here is", "here is the way", "answered"),
        (channel_tokenizer, f"{ANSWERS}I cannot <|done|>", "I cannot", None, "refused"),
        (channel_tokenizer, f"{THINKS}{ANSWERS}I cannot", "I cannot", "here is the way", "refused"),
        (channel_tokenizer, "<|channel|> analysis <|body|> here is the", None, "here is the", "undecided"),
        (channel_tokenizer, THINKS, None, "here is the way", "undecided"),
        (channel_tokenizer, "<|channel|> analysis <|body|> a way <|done|>", "", "a way", "empty"),
        (channel_tokenizer, "sure here is bread <|done|>", "sure here is bread", None, "answered"),
        (channel_tokenizer, "<|done|>", "", None, "empty"),
        (response_tokenizer, "<|reply|> sure here is <|/reply|> <|/turn|>", "sure here is", None, "answered"),
        (response_tokenizer, "<|reply|> I cannot <|/reply|> <|/turn|>", "I cannot", None, "refused"),
        (musing_tokenizer, "<|muse|> a way <|mused|> I cannot <end>", "I cannot", "a way", "refused"),
        (musing_tokenizer, "<|muse|> <|mused|> sure here <end>", "sure here", None, "answered"),
        (musing_tokenizer, "sure here <end>", "sure here", None, "answered"),
        (musing_tokenizer, "<|muse|> a way", None, "a way", "undecided"),
        (response_tokenizer, "sure here is bread <|/turn|>", "sure here is bread", None, "answered"),
        (word_tokenizer, "sure here is bread <end> <user> tell", "sure here is bread", None, "answered"),
    ],
)  # fmt: skip
def test_answers_and_thoughts(make, written, answer, thought, verdict):
    tokenizer = make()
    chat = ChatFormat(tokenizer)
    tokens = tokenizer.encode(written, add_special_tokens=False)
    done = tokens[-1] == tokenizer.eos_token_id
    text, finished = answer_text(chat, tokens, done)
    split = split_thought(text, opened=chat.opens_thought)
    assert (None if split is None else split.thought.strip()) == thought
    found = text if split is None else split.answer
    assert (None if found is None else found.strip()) == answer
    control = tuple(tokenizer.all_special_tokens)
    assert verdict_of(text, finished, control=control, opened=chat.opens_thought) == Verdict(verdict)
