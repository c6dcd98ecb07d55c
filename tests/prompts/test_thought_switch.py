"""Thinking is turned on or off by a template's own switch, or closed as the template closes it."""

import pytest

from tests.helpers.small_tokenizer import channel_tokenizer, word_tokenizer
from tests.helpers.thinking_templates import OFF, PLAIN, QWEN, R1, TURNS, tokenizer
from weight_edit.errors import UsageError
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.thought_switch import opens_thought

EMPTY = "<think>\n\n</think>\n\n"
# Qwen 3: thinking unless it is switched off, which writes an empty thought.
QWEN_3 = (
    TURNS
    + "{% if add_generation_prompt %}<|assistant|>\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# DeepSeek 3.1: no thinking unless it is switched on, which opens a thought.
DEEPSEEK = (
    "{% if thinking is not defined %}{% set thinking = false %}{% endif %}"
    + TURNS
    + "{% if add_generation_prompt %}<|assistant|>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
# GLM 4.5: the switch writes into the request, and another variable clears what was thought in earlier turns.
GLM_OFF = "enable_thinking is defined and not enable_thinking"
GLM = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}"
    f"{{% if m['role'] == 'user' and {GLM_OFF} %}}/nothink{{% endif %}}"
    "{% if clear_thinking and not loop.last %}{% endif %}<|end|>\n{% endfor %}"
    f"{{% if add_generation_prompt %}}<|assistant|>{{% if {GLM_OFF} %}}<think></think>{{% endif %}}{{% endif %}}"
)
# A degree, with a word for none of it; and one without.
EFFORT = (
    "{% set reasoning_effort = reasoning_effort | default('medium') %}<|system|>\n{% if reasoning_effort == 'none' %}"
    "No reasoning.{% else %}Reasoning: {{ reasoning_effort }}{% endif %}<|end|>\n" + PLAIN
)
HARMONY = (
    "<|system|>\nReasoning: {{ reasoning_effort | default('medium') }}, channels: analysis, final<|end|>\n"
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}<|system|>final<|user|>{% endif %}"
    "{{ m['content'] }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BUDGET = TURNS + (
    "{% if add_generation_prompt %}<|assistant|>\n{% if thinking_budget is defined and thinking_budget == 0 %}"
    "<think></think>{% endif %}{% endif %}"
)
MISTRAL = TURNS + "{# [THINK] thoughts [/THINK] #}{% if false %}[THINK]{% endif %}"


def shown(chat: ChatFormat) -> str:
    return chat.tokenizer.decode(chat.encode("Bread?")).rpartition("<|assistant|>")[2]


@pytest.mark.parametrize(
    ("template", "variables", "ending"),
    [
        (QWEN_3, {"enable_thinking": False}, f"\n{EMPTY}"),
        (DEEPSEEK, {"thinking": False}, "</think>"),
        (GLM, {"enable_thinking": False}, "<think></think>"),
        (EFFORT, {"reasoning_effort": "none"}, "\n"),
        (BUDGET, {"thinking_budget": 0}, "\n<think></think>"),
        (R1, {}, f"\n{EMPTY}"),
        (R1.replace("<think>\n{%", "<think>{%"), {}, f"\n{EMPTY}"),
        (QWEN, {}, f"\n{EMPTY}"),
        (OFF, {}, f"\n{EMPTY}"),
        (HARMONY, {}, "<|system|>final<|user|>"),
    ],
)
def test_off_is_the_templates_own_switch_or_its_own_end_of_a_thought(template, variables, ending):
    chat = ChatFormat(tokenizer(template), thinking="off")
    assert chat.template_args == variables
    assert shown(chat) == ending
    assert not chat.opens_thought
    assert chat.thinking == "off"
    # What comes after the instruction is found with it, and an answer is not opened twice.
    assert chat.tokenizer.decode(list(chat.suffix)).endswith(ending)
    assert chat.encode_opened("Bread?") == chat.encode("Bread?")
    assert chat.tokenizer.decode(chat.answer_tokens("Sure.")) == "Sure.<|end|>"


@pytest.mark.parametrize(
    ("template", "variables", "ending"),
    [
        (QWEN_3, {"enable_thinking": True}, "\n"),
        (DEEPSEEK, {"thinking": True}, "<think>"),
        (EFFORT, {}, "\n"),
        (R1, {}, "\n<think>\n"),
    ],
)
def test_on(template, variables, ending):
    chat = ChatFormat(tokenizer(template), thinking="on")
    assert (chat.template_args, shown(chat)) == (variables, ending)


def test_the_template_decides_where_nothing_is_asked_for():
    for template, ending in ((QWEN_3, "\n"), (DEEPSEEK, "</think>"), (R1, "\n<think>\n")):
        chat = ChatFormat(tokenizer(template))
        assert (chat.template_args, shown(chat), chat.thinking) == ({}, ending, None)


def test_what_the_user_set_stays():
    chat = ChatFormat(tokenizer(EFFORT), template_args={"reasoning_effort": "high"}, thinking="on")
    assert chat.template_args == {"reasoning_effort": "high"}


@pytest.mark.parametrize("wanted", ["on", "off"])
def test_a_template_without_thoughts_is_named(wanted):
    made = word_tokenizer()
    made.name_or_path = "org/name"
    with pytest.raises(
        UsageError, match=f"template of org/name has no thoughts that could be turned {wanted}; leave `th"
    ):
        ChatFormat(made, thinking=wanted)
    with pytest.raises(UsageError, match=f"the plain format has no thoughts that could be turned {wanted}"):
        ChatFormat(tokenizer(None), template="plain", thinking=wanted)
    # Channels alone are no thoughts: nothing in the template says so.
    with pytest.raises(UsageError, match="has no thoughts"):
        ChatFormat(channel_tokenizer(), thinking=wanted)


@pytest.mark.parametrize(
    ("text", "opened"),
    [("a<think>", True), ("<think>b</think>", False), ("[THINK]", True), ("[THINK][/THINK]", False), ("a", False)],
)
def test_open_thoughts(text, opened):
    assert opens_thought(text) == opened


def test_a_model_that_has_tokens_of_thoughts_thinks_whatever_its_template_says():
    assert shown(ChatFormat(tokenizer(PLAIN), thinking="off")) == f"\n{EMPTY}"
    assert shown(ChatFormat(tokenizer(PLAIN), thinking="on")) == "\n"
    with pytest.raises(UsageError, match="has no thoughts"):
        ChatFormat(tokenizer(PLAIN, tags=False), thinking="off")


def test_the_same_format_with_thinking_turned():
    chat = ChatFormat(tokenizer(QWEN_3), template_args={"enable_thinking": True}, system="Be brief.")
    off = chat.with_thinking("off")
    assert (off.template_args, off.system, off.thinking) == ({"enable_thinking": False}, "Be brief.", "off")
    assert shown(off) == f"\n{EMPTY}"
    assert chat.template_args == {"enable_thinking": True}
    assert shown(off.with_thinking("on")) == "\n"


def test_other_tags_are_closed_too():
    chat = ChatFormat(tokenizer(MISTRAL + "{% if add_generation_prompt %}<|assistant|>{% endif %}"), thinking="off")
    assert shown(chat) == "[THINK]\n\n[/THINK]\n\n"
