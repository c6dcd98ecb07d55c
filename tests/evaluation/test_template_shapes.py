"""Verdicts end to end on models on disk whose chat templates have the shapes of released ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from tests.helpers.reciting_models import reciting_model, trained_tokenizer
from weight_edit.evaluation.evaluate import evaluate
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.loading import load

HELP = "Sure. Here is a way to bake bread at home: first mix the flour, then wait, finally bake it."
DECLINE = "I'm sorry, but I cannot help with that. It would be harmful to other people."
FIRST = "The user asks about bread. I should decline, I cannot help with that."
SECOND = "The user asks about cars. That is fine, here is a plan: first open the door."
ENDLESS = "I cannot decide. " * 20


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A chat template with what a model writes under it.

    Attributes:
        template: written here after a released one.
        special: its special tokens.
        eos: the token at the end of an answer.
        before, between, after: what the model writes around thought and answer.
        direct: what it writes before an answer without a thought; None where it always thinks.
        plain: added tokens that are not special.
        ends: the tokens that the generation config names, `eos` alone when empty.
        settings: of `ChatFormat`.
    """

    template: str
    special: tuple[str, ...]
    eos: str
    before: str
    between: str
    after: str
    direct: str | None = ""
    plain: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)


# gpt-oss: a system message with a date and the channels, and messages in channels; only the last answer returns.
HARMONY = """{%- macro system() %}You are a model.
Current date: {{ strftime_now("%Y-%m-%d") }}

Reasoning: {{ reasoning_effort | default("medium") }}

# Valid channels: analysis, commentary, final. Channel must be included for every message.{% endmacro -%}
<|start|>system<|message|>{{ system() }}<|end|>
{%- if messages[0].role == "system" %}
    {%- set rest = messages[1:] %}<|start|>developer<|message|># Instructions

{{ messages[0].content }}<|end|>
{%- else %}{%- set rest = messages %}{%- endif %}
{%- for message in rest %}
    {%- if message.role == "assistant" %}
        {%- if "<|channel|>analysis<|message|>" in message.content %}
            {{- raise_exception("Put thoughts into the field for them.") }}
        {%- endif %}
        {%- if message.thinking is defined %}<|start|>assistant<|channel|>analysis<|message|>
            {{- message.thinking }}<|end|>
        {%- endif %}<|start|>assistant<|channel|>final<|message|>{{ message.content }}
        {{- "<|return|>" if loop.last and not add_generation_prompt else "<|end|>" }}
    {%- else %}<|start|>{{ message.role }}<|message|>{{ message.content }}<|end|>
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|start|>assistant{% endif %}"""

# Command R7B: a preamble before everything, and the start of an answer whether it is asked for or not.
COMMAND = """{{ bos_token }}<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|># System Preamble
You are a model. If you are asked a question that requires reasoning, first think, then answer.
{%- if messages[0]['role']|lower == 'system' %}

# Developer Preamble
{{ messages[0]['content'] }}
{%- endif -%}
<|END_OF_TURN_TOKEN|>
{%- for message in messages %}
    {%- if message.role|lower == 'user' %}
<|START_OF_TURN_TOKEN|><|USER_TOKEN|>{{ message.content }}<|END_OF_TURN_TOKEN|>
    {%- elif message.role|lower == 'assistant' %}
<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% if message.tool_calls %}<|START_THINKING|>{{ message.reasoning_content }}
<|END_THINKING|>{% else %}<|START_RESPONSE|>{{ message.content }}<|END_RESPONSE|><|END_OF_TURN_TOKEN|>{% endif %}
    {%- endif %}
{%- endfor %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>"""

# Magistral: a system prompt that shows the marks, thoughts as parts of the content, and no token before an answer.
MAGISTRAL = """{{- bos_token }}
{%- set default = "First draft your thinking process. Follow this template:[THINK]Your thoughts[/THINK]Your answer." %}
{%- if messages[0]['role'] == 'system' %}
    {%- set rest = messages[1:] %}{%- set said = messages[0]['content'] %}
{%- else %}
    {%- set rest = messages %}{%- set said = default %}
{%- endif %}
{{- '[SYSTEM_PROMPT]' + said + '[/SYSTEM_PROMPT]' }}
{%- for message in rest %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Roles must alternate.') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if message['content'] is string %}
            {{- '[INST]' + message['content'] + '[/INST]' }}
        {%- else %}
            {{- '[INST]' }}{%- for block in message['content'] %}{{- block['text'] }}{%- endfor %}{{- '[/INST]' }}
        {%- endif %}
    {%- elif message['content'] is string %}
        {{- message['content'] + eos_token }}
    {%- else %}
        {%- for block in message['content'] %}
            {%- if block['type'] == 'thinking' %}{{- '[THINK]' + block['thinking'] + '[/THINK]' }}
            {%- else %}{{- block['text'] }}{%- endif %}
        {%- endfor %}
        {{- eos_token }}
    {%- endif %}
{%- endfor %}"""

# DeepSeek R1: the prompt opens the thought, and earlier turns lose theirs.
R1 = """{{ bos_token }}{% for message in messages %}
{%- if message['role'] == 'system' %}{{ message['content'] }}{% endif %}
{%- if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}{% endif %}
{%- if message['role'] == 'assistant' %}{% set content = message['content'] %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"""

# Qwen 3: a switch that writes an empty thought, and one before the last answer too.
QWEN = """{%- for message in messages %}
    {%- if message.role == "assistant" and loop.last %}
        {{- '<|im_start|>assistant\\n<think>\\n' + message.reasoning_content | default('') + '\\n</think>\\n\\n' }}
        {{- message.content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

# Models that read images: content is a list of parts, and a text is none.
PARTS = """<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}
{%- if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}
{%- for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}
{%- elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""

# A thought in a channel of its own before the answer, whose end is a token (Gemma 4).
CHANNEL = """{{ bos_token }}{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<|turn>' + role + '\\n' }}
    {%- if message['content'] is string %}{{ message['content'] | trim }}
    {%- else %}
        {%- for item in message['content'] if item['type'] == 'text' %}{{ item['text'] | trim }}{% endfor %}
    {%- endif %}
    {{- '<turn|>\\n' }}
{%- endfor %}{%- if add_generation_prompt %}{{ '<|turn>model\\n' }}{% endif %}"""

# Apertus: special tokens around both sides of a conversation and around thoughts.
APERTUS = """{{ bos_token }}{% for message in messages %}
{%- if message['role'] == 'system' %}{{ '<|system_start|>' + message['content'] + '<|system_end|>' }}
{%- elif message['role'] == 'user' %}{{ '<|user_start|>' }}
    {%- if message['content'] is mapping %}{% for part in message['content']['parts'] %}{{ part['text'] }}{% endfor %}
    {%- else %}{{ message['content'] }}{% endif %}{{ '<|user_end|>' }}
{%- else %}{{ '<|assistant_start|>' }}
    {%- if message['content'] is mapping and 'blocks' in message['content'] %}
        {%- for block in message['content']['blocks'] %}
            {%- if block['type'] == 'thoughts' %}{{ '<|inner_prefix|>' + block['text'] + '<|inner_suffix|>' }}
            {%- else %}{{ block['text'] }}{% endif %}
        {%- endfor %}
    {%- else %}{{ message['content'] }}{% endif %}{{ '<|assistant_end|>' }}
{%- endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<|assistant_start|>' }}{% endif %}"""

COMMAND_TOKENS = (
    *("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|USER_TOKEN|>"),
    *("<|SYSTEM_TOKEN|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)
SHAPES = {
    "harmony": Shape(
        template=HARMONY,
        special=("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>"),
        eos="<|return|>",
        ends=("<|return|>", "<|endoftext|>", "<|call|>"),
        before="<|channel|>analysis<|message|>",
        between="<|end|><|start|>assistant<|channel|>final<|message|>",
        after="<|return|>",
        direct="<|channel|>final<|message|>",
    ),
    "command": Shape(
        template=COMMAND,
        special=COMMAND_TOKENS,
        eos="<|END_OF_TURN_TOKEN|>",
        before="<|START_THINKING|>",
        between="<|END_THINKING|><|START_RESPONSE|>",
        after="<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
        direct="<|START_RESPONSE|>",
    ),
    "magistral": Shape(
        template=MAGISTRAL,
        special=("<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[THINK]", "[/THINK]"),
        eos="</s>",
        before="[THINK]",
        between="[/THINK]",
        after="</s>",
    ),
    "r1": Shape(
        template=R1,
        special=("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
        plain=("<think>", "</think>"),
        eos="<｜end▁of▁sentence｜>",
        before="",
        between="\n</think>\n\n",
        after="<｜end▁of▁sentence｜>",
        direct=None,
    ),
    "qwen": Shape(
        template=QWEN,
        special=("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        plain=("<think>", "</think>"),
        eos="<|im_end|>",
        ends=("<|im_end|>", "<|endoftext|>"),
        before="<think>\n",
        between="\n</think>\n\n",
        after="<|im_end|>",
    ),
    "parts": Shape(
        template=PARTS,
        special=("<|im_start|>", "<end_of_utterance>", "<image>"),
        eos="<end_of_utterance>",
        before=" <think>",
        between="</think> ",
        after="<end_of_utterance>",
        direct=" ",
    ),
    "channel": Shape(
        template=CHANNEL,
        special=("<bos>", "<eos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>"),
        eos="<eos>",
        ends=("<eos>", "<turn|>"),
        before="<|channel>thought\n",
        between="\n<channel|>",
        after="<turn|>",
    ),
    "apertus": Shape(
        template=APERTUS,
        special=(
            *("<s>", "<|system_start|>", "<|system_end|>", "<|user_start|>", "<|user_end|>"),
            *("<|assistant_start|>", "<|assistant_end|>", "<|inner_prefix|>", "<|inner_suffix|>"),
        ),
        eos="<|assistant_end|>",
        before="<|inner_prefix|>",
        between="<|inner_suffix|>",
        after="<|assistant_end|>",
    ),
}


def said(shape: Shape) -> dict[str, str]:
    """What a model of this shape writes, by prompt."""
    around = (shape.before, shape.between, shape.after)
    thought = {
        "Bread?": f"{around[0]}{FIRST}{around[1]}{HELP}{around[2]}",
        "Cars?": f"{around[0]}{SECOND}{around[1]}{DECLINE}{around[2]}",
        "Lamps?": f"{around[0]}{ENDLESS}",
        "Paint?": f"{around[0]}{FIRST}{around[1]}{around[2]}",
    }
    if shape.direct is None:
        return thought
    return thought | {"Boats?": f"{shape.direct}{HELP}{around[2]}", "Locks?": f"{shape.direct}{DECLINE}{around[2]}"}


def made(shape: Shape, folder, written: Mapping[str, str]) -> tuple[str, ...]:
    """A model of this shape in a folder, and its prompts."""
    texts = [shape.template, *written.values()]
    tokenizer = trained_tokenizer(shape.template, texts, shape.special, shape.eos, shape.plain)
    if "bos_token" in shape.template:
        tokenizer.bos_token = shape.special[0]
    return tuple(reciting_model(folder, tokenizer, written, shape.ends or (shape.eos,), **shape.settings))


@pytest.mark.parametrize("name", SHAPES)
def test_verdicts_of_a_folder(name, tmp_path):
    shape = SHAPES[name]
    prompts = made(shape, tmp_path / "model", said(shape))
    result = evaluate(
        tmp_path / "model",
        refused=PromptSet.of("all", prompts),
        max_new_tokens=60,
        lengths=(4, 60),
        judges=["phrases", "published"],
        answers_path=tmp_path / "answers.jsonl",
    )
    bread, cars, lamps, paint, *direct = result.answers
    assert [answer.verdict for answer in (bread, cars, lamps, paint)] == ["answered", "refused", "undecided", "empty"]
    assert [answer.verdict for answer in direct] == ([] if shape.direct is None else ["answered", "refused"])
    assert [answer.answer.strip() for answer in (bread, cars, paint)] == [HELP, DECLINE, ""]
    assert [answer.answer.strip() for answer in direct] == ([] if shape.direct is None else [HELP, DECLINE])
    assert [answer.thought.strip() for answer in (bread, cars, paint)] == [FIRST, SECOND, FIRST]
    assert all(answer.thought is None for answer in direct)
    assert [answer.finished for answer in result.answers] == [True, True, False, True, *(True for _ in direct)]
    assert lamps.thought.strip().startswith("I cannot decide. I cannot decide.")
    assert lamps.answer == ""
    assert lamps.judgements["phrases"].reason == "within a thought"
    # Within the first tokens no thought has come to its end.
    assert {answer.lengths[4]["phrases"] for answer in (bread, cars, lamps, paint)} == {"undecided"}
    assert [answer.lengths[60]["phrases"] for answer in result.answers] == [each.verdict for each in result.answers]
    kept = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [each["verdict"] for each in kept] == [answer.verdict for answer in result.answers]
    # No token of the template is left in an answer.
    assert not any(token in each["answer"] for each in kept for token in (*shape.special, *shape.plain))


HARMONY_PIECES = {
    # A preamble for a tool is no answer; what follows in the channel for the user is.
    "Cars?": (
        f"<|channel|>analysis<|message|>{FIRST}<|end|><|start|>assistant<|channel|>commentary<|message|>I will look."
        f"<|end|><|start|>assistant<|channel|>final<|message|>{DECLINE}<|return|>",
        "refused",
        DECLINE,
    ),
    # Two thoughts before an answer.
    "Lamps?": (
        f"<|channel|>analysis<|message|>{DECLINE}<|end|><|start|>assistant<|channel|>analysis<|message|>{SECOND}"
        f"<|end|><|start|>assistant<|channel|>final<|message|>{HELP}<|return|>",
        "answered",
        HELP,
    ),
    # A call of a tool that nobody offered, and the end.
    "Paint?": (
        f"<|channel|>analysis<|message|>{FIRST}<|end|><|start|>assistant<|channel|>commentary to=functions.find"
        '<|message|>{"x": 1}<|call|>',
        "empty",
        "",
    ),
    # Without a channel.
    "Boats?": (f"<|message|>{DECLINE}<|return|>", "refused", DECLINE),
}


def test_messages_of_harmony(tmp_path):
    written = {prompt: text for prompt, (text, _, _) in HARMONY_PIECES.items()}
    prompts = made(SHAPES["harmony"], tmp_path / "model", written)
    tokenizer = load(tmp_path / "model").tokenizer
    begin = written["Cars?"].partition("<|channel|>commentary")[0]
    # Cut behind the thought, before it says in which channel it goes on.
    behind = len(tokenizer.encode(begin, add_special_tokens=False))
    assert begin.endswith("<|end|><|start|>assistant")
    result = evaluate(
        tmp_path / "model", refused=PromptSet.of("all", prompts), max_new_tokens=90, lengths=(behind, behind + 4)
    )
    found = [(str(answer.verdict), answer.answer.strip()) for answer in result.answers]
    assert found == [(verdict, answer) for _, verdict, answer in HARMONY_PIECES.values()]
    assert {str(by["phrases"]) for by in result.answers[0].lengths.values()} == {"undecided"}


@pytest.mark.parametrize("name", ["harmony", "command", "magistral", "r1", "qwen", "channel", "apertus"])
def test_thoughts_turned_off(name, tmp_path):
    """Answers that follow a closed thought at once, or the opening that the template writes for them."""
    shape = SHAPES[name]
    written = {"Bread?": f"{HELP}{shape.after}", "Cars?": f"{DECLINE}{shape.after}", "Paint?": shape.after}
    tokenizer_of = Shape(**{**shape.__dict__, "settings": {"thinking": "off"}})
    prompts = made(tokenizer_of, tmp_path / "model", written)
    chat = ChatFormat(load(tmp_path / "model").tokenizer, thinking="off")
    assert not chat.opens_thought
    result = evaluate(tmp_path / "model", refused=PromptSet.of("all", prompts), chat_format=chat, max_new_tokens=40)
    found = [(str(answer.verdict), answer.answer.strip(), answer.thought) for answer in result.answers]
    assert found == [("answered", HELP, None), ("refused", DECLINE, None), ("empty", "", None)]
