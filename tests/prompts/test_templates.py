"""Chat templates of other kinds: content in parts, variables, several by name, and files beside the tokenizer's."""

import json

import pytest

from tests.helpers.small_tokenizer import (
    CHAT_TEMPLATE,
    PARTS,
    SWITCHED,
    channel_tokenizer,
    response_tokenizer,
    word_tokenizer,
)
from weight_edit.errors import UsageError
from weight_edit.hub.source import Source
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.templates import template_args, template_variables
from weight_edit.prompts.thought_format import ThoughtFormat
from weight_edit.runtime.loading import read_tokenizer


def test_content_in_parts_is_rendered_as_transformers_does():
    tokenizer = word_tokenizer(PARTS)
    chat = ChatFormat(tokenizer, system="cut bread")
    parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in
             (("system", "cut bread"), ("user", "make a house"))]  # fmt: skip
    wanted = tokenizer.apply_chat_template(parts, add_generation_prompt=True, return_dict=False)
    assert chat.encode("make a house") == wanted
    assert "make a house <end>" in tokenizer.decode(wanted)
    assert chat.end_of_turn == tokenizer.convert_tokens_to_ids("<end>")
    assert tokenizer.decode(chat.answer_tokens("sure")) == "sure <end>"


def test_a_template_that_shows_a_texts_first_letter_takes_parts():
    first = "<user> {{ messages[0]['content'][0]['text'] or messages[0]['content'][0] }} <end> <assistant>"
    tokenizer = word_tokenizer(first)
    assert tokenizer.decode(ChatFormat(tokenizer).encode("make a house")) == "<user> make a house <end> <assistant>"


def test_a_prompt_that_fails_is_not_blamed_on_the_system_prompt():
    # This vocabulary has the token as a word of its own, so that the text cannot be kept apart from it.
    for template in (PARTS, CHAT_TEMPLATE):
        with pytest.raises(UsageError, match="fails: Can't sanitize '<end>'"):
            ChatFormat(word_tokenizer(template), system="cut bread").encode("make <end> house")


def test_a_template_that_works_with_neither_says_what_it_says_of_texts():
    with pytest.raises(UsageError, match="fails: no parts here"):
        ChatFormat(word_tokenizer("{{ raise_exception('no parts here') }}"))


def test_a_variable_is_passed_to_the_template():
    tokenizer = word_tokenizer(SWITCHED)
    plain, off = ChatFormat(tokenizer), ChatFormat(tokenizer, template_args={"enable_thinking": False})
    assert tokenizer.decode(plain.encode("make a house")).endswith("<assistant>")
    assert off.encode("make a house")[: len(plain.encode("make a house"))] == plain.encode("make a house")
    assert off.encode("make a house") == tokenizer.apply_chat_template(
        [{"role": "user", "content": "make a house"}],
        add_generation_prompt=True,
        return_dict=False,
        enable_thinking=False,
    )
    assert len(off.encode("a")) > len(plain.encode("a"))
    assert plain.thinking_variables == ("enable_thinking",)


@pytest.mark.parametrize(
    ("template", "name", "args", "said"),
    [
        (SWITCHED, None, {"enable_thinkng": False}, "does not use .*'enable_thinkng'; did you mean 'enable_thinking'?"),
        (SWITCHED, None, {"x": 1}, "does not use the template argument 'x'; it reads enable_thinking"),
        (CHAT_TEMPLATE, None, {"enable_thinking": 1}, "it reads no variables"),
        (CHAT_TEMPLATE, "plain", {"enable_thinking": 1}, "the plain format does not use"),
        (SWITCHED, None, {"messages": "a"}, "'messages' is set by the tool itself"),
        (SWITCHED, None, {"tokenize": False}, "'tokenize' is set by the tool itself"),
    ],
)
def test_variables_that_would_change_nothing_are_refused(template, name, args, said):
    with pytest.raises(UsageError, match=said):
        ChatFormat(word_tokenizer(template), template=name, template_args=args)


def test_variables_of_a_template():
    text = (
        "{%- if not thinking is defined %}{% set thinking = false %}{% endif %}{% for m in messages %}"
        "{% generation %}{{ m.content }}{{ bos_token }}{% endgeneration %}{% break %}{% endfor %}"
        "{{ strftime_now('%d') if date else raise_exception('x') }}{% set own = 1 %}{{ own }}"
    )
    assert template_variables(text) == {"thinking", "bos_token", "date"}
    with pytest.raises(UsageError, match="cannot be read"):
        template_variables("{% if %}")


def test_values_are_json_scalars_or_texts():
    texts = ["a=false", "b=3", "c=0.5", "d=null", 'e="3"', "f=low", "g=[1]", "h=NaN", "i=a=b", "j="]
    assert template_args(texts) == {
        **{"a": False, "b": 3, "c": 0.5, "d": None, "e": "3", "f": "low"},
        **{"g": "[1]", "h": "NaN", "i": "a=b", "j": ""},
    }
    with pytest.raises(UsageError, match="write key=value"):
        template_args(["enable_thinking"])


def test_one_of_several_templates_is_chosen_by_name():
    tokenizer = word_tokenizer({"default": CHAT_TEMPLATE, "brief": "{{ messages[0]['content'] }} <assistant>"})
    assert ChatFormat(tokenizer).encode("make a house") == ChatFormat(word_tokenizer()).encode("make a house")
    assert (
        tokenizer.decode(ChatFormat(tokenizer, template="brief").encode("make a house")) == "make a house <assistant>"
    )
    with pytest.raises(UsageError, match="unknown chat template 'breif'; use 'plain', 'default', 'brief'"):
        ChatFormat(tokenizer, template="breif")
    without = word_tokenizer({"one": CHAT_TEMPLATE, "two": CHAT_TEMPLATE})
    with pytest.raises(UsageError, match=r"several chat templates and none called 'default'.*: one, two"):
        ChatFormat(without)


FILES = {
    "chat_template.json": {"chat_template.json": json.dumps({"chat_template": CHAT_TEMPLATE})},
    "processor": {"processor_config.json": json.dumps({"chat_template": CHAT_TEMPLATE, "processor_class": "X"})},
    "both": {
        "processor_config.json": json.dumps({"chat_template": CHAT_TEMPLATE}),
        "chat_template.json": json.dumps({"chat_template": "other"}),
    },
    "jinja": {"chat_template.jinja": CHAT_TEMPLATE},
    "additional": {"additional_chat_templates/brief.jinja": "{{ messages }}", "chat_template.jinja": CHAT_TEMPLATE},
}


@pytest.mark.parametrize("kind", FILES)
def test_templates_are_found_where_transformers_finds_them(tmp_path, kind):
    word_tokenizer(None).save_pretrained(tmp_path)
    for name, text in FILES[kind].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    chat = ChatFormat(read_tokenizer(Source("x", tmp_path, None)))
    assert chat.encode("make a house") == ChatFormat(word_tokenizer()).encode("make a house")


def test_a_broken_file_of_a_template_is_named(tmp_path):
    word_tokenizer(None).save_pretrained(tmp_path)
    for content in ("{", "[]", '{"chat_template": 3}'):
        (tmp_path / "chat_template.json").write_text(content)
        with pytest.raises(UsageError, match=r"chat_template\.json"):
            read_tokenizer(Source("x", tmp_path, None))


@pytest.mark.parametrize(
    ("make", "opening", "end"),
    [
        (channel_tokenizer, "<|channel|> final <|body|>", "<|done|>"),
        (response_tokenizer, "<|reply|>", "<|/reply|>"),
        (word_tokenizer, "", "<end>"),
        # A template without a generation prompt leaves the role to the model.
        (lambda: word_tokenizer(CHAT_TEMPLATE.partition("{% if add")[0]), "<assistant>", "<end>"),
    ],
)
def test_the_end_of_a_turn_is_no_token_that_opens_the_answer(make, opening, end):
    tokenizer = make()
    chat = ChatFormat(tokenizer)
    assert tokenizer.decode(list(chat.opening)) == opening
    assert tokenizer.decode([chat.end_of_turn]) == end
    assert tokenizer.decode(chat.answer_tokens("sure here")) == f"{opening} sure here {end}".strip()


def test_thoughts_between_tags_are_none_of_a_model_with_channels():
    with pytest.raises(UsageError, match=r"opens answers with '<\|channel\|> final <\|body\|>'"):
        ThoughtFormat(channel_tokenizer(), {})
