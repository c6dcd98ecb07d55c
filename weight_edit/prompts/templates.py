"""Chat templates as texts: their place in a model's folder, their variables and values."""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from weight_edit.checkpoint.files import read_json, read_whole
from weight_edit.errors import UsageError, first_line

Scalar = bool | int | float | str | None
"""The type of a template variable's value."""

# What transformers gives every template, or decides by itself.
_GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
_TAKEN = _GIVEN | {
    *("conversation", "chat_template", "continue_final_message", "tokenize", "sanitize_control_tokens", "padding"),
    *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs"),
}
# Names that transformers defines in the template's environment.
_DEFINED = frozenset({"raise_exception", "strftime_now", "dict", "namespace", "range", "lipsum", "cycler", "joiner"})


class _Generation(Extension):
    """A Jinja extension for `{% generation %}`, transformers' mark of the assistant's words."""

    tags = {"generation"}  # noqa: RUF012 - declared so by the class it is of

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def template_variables(template: str) -> frozenset[str]:
    """The variables that a template reads and its user may set, special tokens included.

    Raises:
        UsageError: the text is no Jinja template.
    """
    try:
        found = meta.find_undeclared_variables(parsed_template(template))
    except jinja2.TemplateError as error:
        raise UsageError(f"the chat template cannot be read: {first_line(error)}") from error
    return frozenset(found) - _GIVEN - _DEFINED


def parsed_template(template: str) -> nodes.Template:
    """The syntax tree of a chat template.

    Raises:
        jinja2.TemplateError: the text is no Jinja template.
    """
    return jinja2.Environment(extensions=[_Generation, loopcontrols]).parse(template)


def check_template_args(args: Mapping[str, Any], template: str | None, name: str) -> None:
    """Refuse variables that a template does not read: a misspelt one would have no effect.

    Args:
        template: its text; None for a plain format, which reads none.
        name: the model's, for messages.

    Raises:
        UsageError: a variable that is unknown, or that the tool sets itself.
    """
    if not args:
        return
    known = frozenset() if template is None else template_variables(template)
    for key in args:
        if key in _TAKEN:
            raise UsageError(f"template argument '{key}' is set by the tool itself; leave it out")
        if key not in known:
            # Special tokens are no switches.
            offered = sorted(other for other in known if not other.endswith("_token"))
            near = difflib.get_close_matches(key, offered, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it reads {', '.join(offered) or 'no variables'}"
            what = "the plain format" if template is None else f"the chat template of {name}"
            raise UsageError(f"{what} does not use the template argument '{key}'; {hint}")


def template_args(texts: Iterable[str] | None) -> dict[str, Scalar]:
    """Template variables from "key=value" texts; a value is JSON, else plain text.

    Raises:
        UsageError: one that is not of that form.
    """
    found: dict[str, Scalar] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(
                f"`template_args: {text}`: write key=value, for example `template_args: enable_thinking=false`",
                option="template_args",
            )
        found[key.strip()] = _scalar(value)
    return found


def template_of_processor(folder: Path) -> str | dict[str, str] | None:
    """The chat template of a folder's processor, as models with images or sounds have it.

    As in transformers (`ProcessorMixin.get_processor_dict`), `processor_config.json` comes before `chat_template.json`;
    files ending in .jinja are the tokenizer's as well, which has read them.

    Raises:
        UsageError: a file of the two that is no JSON object, or whose template is no text.
    """
    for name in ("processor_config.json", "chat_template.json"):
        file = folder / name
        if not file.is_file():
            continue
        content = read_json(read_whole(file), str(file), unique_keys=False)
        template = content.get("chat_template") if isinstance(content, dict) else None
        if isinstance(template, str) or _are_named(template):
            return template
        if template is not None or not isinstance(content, dict):
            raise UsageError(f"{file} must be a JSON object whose chat_template is a text")
    return None


def _are_named(template: Any) -> bool:
    return isinstance(template, dict) and bool(template) and all(isinstance(text, str) for text in template.values())


def _scalar(text: str) -> Scalar:
    def no_number(word: str) -> str:  # NaN and Infinity are words: no JSON, and no number that a template expects
        return word

    try:
        value = json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError):
        return text
    return value if value is None or isinstance(value, bool | int | float | str) else text
