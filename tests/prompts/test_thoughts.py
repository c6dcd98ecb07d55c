"""Thoughts: taken off an answer, and put before one."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.helpers.thinking_templates import OFF, PLAIN, QWEN, R1, tokenizer
from weight_edit.errors import UsageError
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.thought_format import ThoughtFormat
from weight_edit.prompts.thoughts import ANSWERS, CLOSE, THOUGHTS, Thinking, split_thought

MADE = "\nThe user wants bread. I can help.\n"


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer"),
    [
        ("<think>\nhm\n</think>\n\nSure.", False, "\nhm\n", "\n\nSure."),
        (" \n<think>hm</think>Sure.", False, "hm", "Sure."),
        ("hm\n</think>\n\nSure.", False, "hm\n", "\n\nSure."),
        ("hm\n</think>\n\nSure.", True, "hm\n", "\n\nSure."),
        ("<think>\nhm", False, "\nhm", None),
        ("hm", True, "hm", None),
        ("<think></think>", False, "", ""),
        ("<think>a</think> <think>b</think>Sure.", False, "ab", "Sure."),
        ("<think>a</think> <think>b", False, "ab", None),
        ("<think>a</think>Use </think> to close.", False, "a", "Use </think> to close."),
    ],
)
def test_thought_and_answer(text, opened, thought, answer):
    assert split_thought(text, opened=opened) == Thinking(thought, answer)


def test_a_text_without_a_thought_has_none():
    for text in ("", "Sure.", "I think so.", "Write <think> first."):
        assert split_thought(text) is None


@given(st.text(), st.text())
def test_what_is_put_together_comes_apart(thought, answer):
    # A mark of any kind in either has a meaning of its own; hypothesis draws them from the package's constants.
    marks = [mark for pair in (*THOUGHTS, *ANSWERS) for mark in pair]
    assume(not any(mark in text for text in (thought, answer, f"{thought}</think>") for mark in marks if mark != CLOSE))
    assume(CLOSE not in thought + answer and "<|channel|>" not in thought + answer)
    assert split_thought(f"<think>{thought}</think>{answer}") == Thinking(thought, answer)


@pytest.mark.parametrize(("template", "opens"), [(PLAIN, False), (QWEN, False), (R1, True), (OFF, False)])
def test_whether_prompts_end_within_a_thought(template, opens):
    assert ChatFormat(tokenizer(template)).opens_thought is opens
    assert ChatFormat(tokenizer(template), template="plain").opens_thought is False


@pytest.mark.parametrize("template", [PLAIN, QWEN, R1])
@pytest.mark.parametrize("tags", [True, False])
def test_a_kept_thought_stands_before_the_answer(template, tags):
    own = tokenizer(template, tags)
    thought = MADE[1:] if template is R1 else MADE
    kept = ThoughtFormat(own, {"bread": thought})
    text = own.decode(kept.encode("bread"))
    assert text == f"<|user|>\nbread<|end|>\n<|assistant|>\n<think>{MADE}</think>\n\n"
    assert kept.encode("bread").count(own.convert_tokens_to_ids("<think>")) == (1 if tags else 0)
    ending = ThoughtFormat(own, {"bread": thought}, gap="").encode("bread")
    assert own.decode(ending).endswith("I can help.\n</think>")
    assert own.decode(kept.suffix) == "\n</think>\n\n"
    assert kept.opens_thought is False
    # what the judge and the loss are given
    assert own.decode(kept.answer_tokens("Sure.")) == "Sure.<|end|>"


def test_a_system_prompt_stays_before_it():
    kept = ThoughtFormat(tokenizer(PLAIN), {"bread": MADE}, system="Be kind.")
    assert kept.tokenizer.decode(kept.encode("bread")).startswith("<|system|>\nBe kind.<|end|>\n<|user|>\nbread")


def test_the_empty_thought_that_a_template_writes_ends_no_turn():
    own = tokenizer(QWEN)
    assert ChatFormat(own).end_of_turn == own.convert_tokens_to_ids("<|end|>")


def test_a_prompt_without_a_thought_is_named():
    with pytest.raises(UsageError, match="no thought for the prompt 'soup'"):
        ThoughtFormat(tokenizer(PLAIN), {"bread": MADE}).encode("soup")


def test_a_template_that_closes_the_thought_is_refused():
    with pytest.raises(UsageError, match="writes </think> itself"):
        ThoughtFormat(tokenizer(OFF), {"bread": MADE})
