"""How a chat template is told to let the model think before it answers, or not to.

A template may have a switch: a variable with "think" or "reason" in its name, by which prompts differ. Which of its
values does what is tried, not known by name. One that has none may close the thought by itself when it writes an
answer, or open it in the prompt; both are done here as the template does.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import jinja2
from jinja2 import nodes

from weight_edit.prompts.templates import Scalar, parsed_template
from weight_edit.prompts.thoughts import GAP, THOUGHTS

_THOUGHT = re.compile(r"think|thought|reason|analysis", re.IGNORECASE)
_NONE = ("none", "off", "no_think")
"""Texts that stand for no thought where a switch takes texts."""


@dataclass(frozen=True)
class Switch:
    """What turns thinking on or off: variables of the template, or text behind every prompt.

    Attributes:
        variables: of the template, with their values.
        text: the rest of a thought, which comes before the answer.
    """

    variables: dict[str, Scalar] = field(default_factory=dict)
    text: str = ""


def thought_switch(
    wanted: str,
    template: str,
    variables: tuple[str, ...],
    ending: Callable[[dict[str, Scalar]], str | None],
    answered: str,
    tags: frozenset[str] = frozenset(),
) -> Switch | None:
    """What turns thinking on or off with a template; None where it has no thoughts.

    Args:
        wanted: "on" or "off".
        template: its text.
        variables: of it, those that may be switches.
        ending: the whole text of a prompt with the variables given; None where the template fails with them.
        answered: what the template writes between a prompt and an answer.
        tags: the marks of thoughts that are tokens of the tokenizer. A model that has some thinks, though its template
            may leave it to write them.
    """
    found = _variable(wanted, template, variables, ending)
    if found is not None:
        return found
    if not _THOUGHT.search(template) and not tags:
        return None
    if wanted == "on":
        return Switch()
    return Switch(text=_closing(template, ending({}) or "", answered, tags))


def opens_thought(text: str) -> bool:
    """Whether a text ends within a thought between tags."""
    return any(text.rfind(opening) > text.rfind(closing) for opening, closing in THOUGHTS)


def _variable(
    wanted: str,
    template: str,
    variables: tuple[str, ...],
    ending: Callable[[dict[str, Scalar]], str | None],
) -> Switch | None:
    """The variable by which prompts differ between thinking and not, with its value."""
    texts = _texts(template)
    # A plain word for it comes first: others say how much or where it is shown.
    for name in sorted(variables, key=lambda each: (each not in ("enable_thinking", "thinking"), each)):
        on: list[Scalar] = [True]
        off: list[Scalar] = [False]
        if "effort" in name.lower() or "budget" in name.lower():
            on, off = [], [text for text in _NONE if text in texts] if "effort" in name.lower() else [0]
        for value in off:
            without, with_ = ending({name: value}), ending({name: on[0]} if on else {})
            if without is None or with_ is None or without == with_ or opens_thought(without):
                continue
            if wanted == "off":
                return Switch({name: value})
            return Switch({name: on[0]} if on else {})
    return None


def _closing(template: str, prompt: str, answered: str, tags: frozenset[str]) -> str:
    """What has to follow a prompt for the answer to begin without a thought."""
    for opening, closing in THOUGHTS:
        if prompt.rfind(opening) > prompt.rfind(closing):
            _, _, begun = prompt.rpartition(opening)
            return f"{GAP.removeprefix(begun) if not begun.strip() else GAP}{closing}{GAP}"
        if closing in prompt and prompt.rstrip().endswith(closing):
            return ""
    if answered.strip():
        return answered
    named = (marks for marks in THOUGHTS if any(mark in template for mark in marks))
    owned = (marks for marks in THOUGHTS if tags.issuperset(marks))
    opening, closing = next((marks for some in (named, owned) for marks in some), THOUGHTS[0])
    return f"{opening}{GAP}{closing}{GAP}"


def _texts(template: str) -> frozenset[str]:
    """The texts that stand in a template's expressions."""
    try:
        tree = parsed_template(template)
    except jinja2.TemplateError:
        return frozenset()
    return frozenset(node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str))
