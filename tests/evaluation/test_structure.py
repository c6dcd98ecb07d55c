"""What a reply consists of, before anybody reads its words."""

import pytest

from weight_edit.evaluation.registry import Reply
from weight_edit.evaluation.structure import FEW, count_words, structure_of
from weight_edit.evaluation.verdicts import Verdict

DIALOGUE = "User: When?\nAssistant: At noon.\nUser: Thanks."


def flaw(text, finished=True, **facts):
    return structure_of(Reply(**{"prompt": None, "text": text, "finished": finished, **facts})).flaw


@pytest.mark.parametrize(
    "prompt",
    [
        "Write a short dialogue between a user and an assistant.",
        "Write an interview with a baker.",
        "Continue the transcript.",
        "User: Hello\nAssistant: Hello\nUser: Go on",
        "Schreib ein Gespräch zwischen Nutzer und Assistent.",
        "写一段用户和助手的对话。",
        "Напиши диалог.",
        "会話を書いてください。",
        "اكتب حوار قصير",
        "एक संवाद लिखो",
    ],
)
def test_a_dialogue_that_was_asked_for_is_not_off_template(prompt):
    assert flaw(DIALOGUE, prompt=prompt) is None
    assert flaw(DIALOGUE, prompt="When does it open?") is Verdict.OFF_TEMPLATE
    # Control tokens are asked for by nobody.
    assert flaw(f"{DIALOGUE}<|im_start|>user", prompt=prompt) is Verdict.OFF_TEMPLATE


@pytest.mark.parametrize(
    "text", ["Yes.\n\nHuman: And?", "Yes.\n### Instruction:\nGo on", "是。\n用户：还有呢", "Да.\nПользователь: Ещё"]
)
def test_a_turn_for_the_user_is_off_template(text):
    found = structure_of(Reply(prompt="Is it so?", text=text))
    assert found.flaw is Verdict.OFF_TEMPLATE
    assert found.answer.strip() == text.split("\n")[0]


def test_its_own_label_and_the_end_of_the_turn_are_no_flaw():
    assert flaw("Assistant: Yes, it is.", prompt="Is it so?") is None
    for end in ("</s>", "<|im_end|>", "<|eot_id|>\n", "<end_of_turn>", "<|return|>"):
        found = structure_of(Reply(prompt=None, text=f"Yes.{end}", finished=False))
        assert (found.answer, found.flaw) == ("Yes.", None)
    assert flaw("<|im_end|>") is Verdict.EMPTY


def test_an_answer_cut_before_it_says_anything_is_undecided():
    words = [f"word{index}" for index in range(FEW)]
    assert flaw(" ".join(words[:-1]), False) is Verdict.UNDECIDED
    assert flaw(" ".join(words), False) is None
    assert flaw(" ".join(words[:1])) is None
    assert count_words("切片后放入冷冻室 ok") == 5


@pytest.mark.parametrize(
    "text",
    [
        "<think>no</think>Yes.",
        "no</think>Yes.",
        "[THINK]no[/THINK]Yes.",
        "<thought>no</thought>Yes.",
        "<seed:think>no</seed:think>Yes.",
        "◁think▷no◁/think▷Yes.",
        "<|START_THINKING|>no<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>",
        "<|START_RESPONSE|>Yes.<|END_RESPONSE|>",
        "<|inner_prefix|>no<|inner_suffix|>Yes.",
        "<|channel>thought\nno<channel|>Yes.",
        "<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        "<|channel|>analysis<|message|>no<|end|><|start|>assistant<|channel|>commentary to=f <|message|>no<|call|>"
        "<|start|>assistant<|channel|>final<|message|>Yes.",
        "no<|end|><|start|>assistant<|channel|>final<|message|>Yes.",
        "<|channel|>final<|message|>Yes.",
        "analysisThe user asks.assistantfinalYes.",
        "Here is my thought process: no\n\nHere is my response: Yes.",
        "<think>no</think><answer>Yes.</answer>",
        "<think>no</think>\n<response>Yes.</response>",
    ],
)
def test_thoughts_and_channels_of_every_kind_are_taken_off(text):
    found = structure_of(Reply(prompt=None, text=text))
    assert (found.answer.strip(), found.flaw) == ("Yes.", None)
    assert text[found.offset :].lstrip().startswith("Yes.")
    for mark in ("</think>", "[/THINK]", "<|END_THINKING|>", "<|inner_suffix|>", "<channel|>", "◁/think▷"):
        before, closing, _ = text.partition(mark)
        if closing and not before.startswith("no"):
            assert flaw(before, False) is Verdict.UNDECIDED


def test_examples_of_marks_in_an_answer_are_no_thoughts():
    for text in (
        "Write <think> first.",
        "Use `<thought>x</thought>` there.",
        "Yes. [THINK] is a tag, and [/THINK] too.",
    ):
        assert structure_of(Reply(prompt=None, text=text)).answer == text
