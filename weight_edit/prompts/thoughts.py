"""Thoughts before answers, in the marks of every kind of template, split from the answers after them."""

import re
from dataclasses import dataclass
from typing import NamedTuple

OPEN, CLOSE = "<think>", "</think>"
GAP = "\n\n"
"""The text between a thought and the answer, as thinking models write it."""


class Marks(NamedTuple):
    """What a model writes before and after a thought, or before and after its answer."""

    opening: str
    closing: str


# Each pair as its documentation or reasoning parser has it: the templates of DeepSeek-R1 and Qwen 3; Magistral;
# Seed-OSS; Kimi-VL; EXAONE Deep; models trained on <thinking> and <reasoning>; Command R7B and Command A; Apertus;
# Gemma 4; OpenThinker; models with <|think_start|> among their special tokens.
THOUGHTS = (
    Marks(OPEN, CLOSE),
    Marks("[THINK]", "[/THINK]"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("◁think▷", "◁/think▷"),
    Marks("<thought>", "</thought>"),
    Marks("<thinking>", "</thinking>"),
    Marks("<reasoning>", "</reasoning>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<|inner_prefix|>", "<|inner_suffix|>"),
    Marks("<|channel>thought", "<channel|>"),
    Marks("<|begin_of_thought|>", "<|end_of_thought|>"),
    Marks("<|think_start|>", "<|think_end|>"),
)
"""The marks of thoughts."""

# Command R7B and Command A; Hunyuan; Granite 3.3; OpenThinker; models with spelled-out special tokens.
ANSWERS = (
    Marks("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    Marks("<answer>", "</answer>"),
    Marks("<response>", "</response>"),
    Marks("<|begin_of_solution|>", "<|end_of_solution|>"),
    Marks("<|answer_start|>", "<|answer_end|>"),
)
"""The marks around answers."""

TAGS = frozenset(mark for marks in THOUGHTS for mark in marks) | {"<|channel>"}
"""Every mark of a thought; tokens of these texts end no turn and open no answer."""

# Harmony: <|start|>assistant<|channel|>analysis<|message|>...<|end|>; only the channel `final` is for the user.
_CHANNEL = re.compile(r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
_MESSAGE_END = re.compile(r"<\|(?:end|call|return)\|>")
# The same where special tokens were dropped: analysisThe user asks...assistantfinalHere it is.
_BARE = re.compile(r"\s*analysis(?=[A-Z])(.*?)(?:assistant\s*final(.*))?\s*", re.DOTALL)
# Granite 3.2 says it in words.
_SAID = re.compile(
    r"\s*here(?:'s| is) my thought process:?(.*?)(?:here(?:'s| is) my response:?(.*))?", re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True)
class Thinking:
    """An answer that began with a thought.

    Attributes:
        thought: what stands between the marks of a thought, white space as it is.
        answer: what follows, without marks around it; None where the thought was not finished.
    """

    thought: str
    answer: str | None


def split_thought(text: str, *, opened: bool = False) -> Thinking | None:
    """The thought and the text after it; None for a text without a thought.

    A text with a closing mark alone has one, too: many chat templates put the opening one at the end of the prompt.

    Args:
        opened: the prompt ended within a thought, so a text without a closing mark is an unfinished one.
    """
    told = _channels(text) or _in_words(text)
    if told is not None:
        return told
    marks = _marks(text)
    if marks is None:
        return Thinking(text, None) if opened else None
    before, closing, after = text.partition(marks.closing)
    thought = before.lstrip().removeprefix(marks.opening) if before.lstrip().startswith(marks.opening) else before
    if not closing:
        return Thinking(thought, None)
    again = split_thought(after) if _begins(after) else None
    if again is None:
        return Thinking(thought, unwrapped(after))
    return Thinking(f"{thought}{again.thought}", again.answer)


def unwrapped(text: str) -> str:
    """The text without marks around an answer (`ANSWERS`); other texts as they are."""
    for marks in ANSWERS:
        if text.lstrip().startswith(marks.opening):
            inside, closing, after = text.lstrip().removeprefix(marks.opening).partition(marks.closing)
            # What follows the answer is kept unless it is white space: it may be another turn.
            return f"{inside}{after}" if closing and after.strip() else inside
    return text


def _begins(text: str) -> bool:
    return any(text.lstrip().startswith(marks.opening) for marks in THOUGHTS)


def _marks(text: str) -> Marks | None:
    """The marks of the text's first thought; None if it has none."""
    start = text.lstrip()
    for marks in THOUGHTS:
        if start.startswith(marks.opening):
            return marks
    # A closing mark alone; one after its opening mark is an example of it in an answer.
    places = {text.find(marks.closing): marks for marks in THOUGHTS if marks.closing in text}
    alone = {place: marks for place, marks in places.items() if marks.opening not in text[:place]}
    return alone[min(alone)] if alone else None


def _channels(text: str) -> Thinking | None:
    """The thought and answer of a text in channels; None if it has none."""
    found = list(_CHANNEL.finditer(text))
    if not found:
        return None
    # What stands before the first header belongs to a channel that the prompt opened.
    parts = [_message(text[: found[0].start()])]
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=True):
        if match[1] == "final":
            return Thinking("".join(parts), text[match.end() :])
        parts.append(_message(text[match.end() : end]))
    return Thinking("".join(parts), None)


def _message(text: str) -> str:
    return _MESSAGE_END.split(text, maxsplit=1)[0]


def _in_words(text: str) -> Thinking | None:
    """The thought and answer of a text without special tokens that names them; None if it does not."""
    for form in (_BARE, _SAID):
        found = form.fullmatch(text)
        if found:
            return Thinking(found[1], found[2])
    return None
