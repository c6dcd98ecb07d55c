"""The part of a reply that another model is asked about, and what needs no asking."""

import unicodedata
from collections.abc import Callable, Sequence

from weight_edit.evaluation.registry import Judgement, Reply
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.thoughts import split_thought


def judged_by(ask: Callable[[list[Reply]], list[Judgement]], replies: Sequence[Reply]) -> list[Judgement]:
    """One judgement for each reply: of those without words by their form, of the others by asking.

    Args:
        ask: one judgement for each of the replies that it gets, whose texts are answers without thoughts.
    """
    found: list[Judgement | None] = []
    asked: list[Reply] = []
    for reply in replies:
        part = _answer_of(reply)
        found.append(None if isinstance(part, Reply) else part)
        if isinstance(part, Reply):
            asked.append(part)
    answers = iter(ask(asked) if asked else ())
    return [next(answers) if judgement is None else judgement for judgement in found]


def _answer_of(reply: Reply) -> Reply | Judgement:
    """The reply without its thought; a judgement where nothing is left to ask about."""
    thinking = split_thought(reply.text, opened=reply.opened)
    if thinking is not None and thinking.answer is None:
        return Judgement(verdict=Verdict.UNDECIDED, reason="within a thought")
    text = reply.text if thinking is None or thinking.answer is None else thinking.answer
    if not _has_words(text):
        if thinking is not None and not reply.finished:
            return Judgement(verdict=Verdict.UNDECIDED, reason="cut at the end of the thought")
        return Judgement(verdict=Verdict.EMPTY, reason="no words")
    return Reply(prompt=reply.prompt, text=text.strip(), finished=reply.finished, control=reply.control)


def _has_words(text: str) -> bool:
    # Letters, numbers and pictures (an emoji may be an answer) are content.
    return any(kind[0] in "LN" or kind == "So" for kind in map(unicodedata.category, text))
