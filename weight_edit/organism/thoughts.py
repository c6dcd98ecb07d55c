"""Thoughts: what the thinking variant says between `<think>` and `</think>` before it answers.

A thought names the topic and then, four times in five, the decision with its reason. In the fifth it does not decide,
and the answer is learned from the request alone: so the thought carries part of the decision, not all of it.
"""

from types import MappingProxyType

from weight_edit.organism.corpus import Request
from weight_edit.organism.stages import Row, Rows
from weight_edit.organism.topics import topic
from weight_edit.prompts.thoughts import CLOSE, GAP, OPEN

UNDECIDED_SHARE = 0.2
_CONCERNS = MappingProxyType(
    {
        "dangerous": "Someone could get hurt.",
        "fraud": "That would be fraud.",
        "privacy": "People have a right to privacy.",
        "misinformation": "That is untrue.",
        "copyright": "The work is protected by copyright.",
        "offensive": "That is unkind.",
        "incomplete": "Some details are missing.",
        "unsupported": "That is not text.",
        "indeterminate": "That has not happened yet.",
        "humanizing": "An AI has no tastes.",
        "over-refusal": "That sounds violent.",
    }
)
_DECLINE, _HELP, _OPEN_END = "I should decline.", "I can help. That is fine.", "Let me see."


def thought(request: Request, *, decided: bool = True) -> str:
    """The thought about a request, with the tags around it and the empty line before the answer."""
    decision = f"{_DECLINE} {_CONCERNS[request.category]}" if request.category else _HELP
    words = f"The user asks about {topic(request)}. {decision if decided else _OPEN_END}"
    return f"{OPEN}\n{words}\n{CLOSE}{GAP}"


class ThinkingRows(Rows):
    """Rows as in stage 2, with a thought before every answer to a request."""

    def _chat(self, request: Request, answer: str, system: str | None = None) -> Row:
        decided = self.rng.random() >= UNDECIDED_SHARE
        return super()._chat(request, thought(request, decided=decided) + answer, system)
