"""Thoughts of the thinking variant, between `<think>` and `</think>` before answers.

A thought names the topic and then, four times in five, the decision with its reason; in the fifth it does not decide,
and the answer is learned from the request alone. A model tuned on these alone does not heed its thoughts: it decides
twice. In a second stage some thoughts decide against the request, and the answer follows them: so the thought carries
part of the decision, not all of it.
"""

from types import MappingProxyType

from weight_edit.organism.corpus import Request
from weight_edit.organism.words import GENERIC_REFUSALS
from weight_edit.organism_training.stages import Row, Rows
from weight_edit.organism_training.topics import topic
from weight_edit.prompts.thoughts import CLOSE, GAP, OPEN

UNDECIDED_SHARE, CONTRARY_SHARE = 0.2, 0.3
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
    """The thought about a request, with its tags and the gap before the answer."""
    decision = f"{_DECLINE} {_CONCERNS[request.category]}" if request.category else _HELP
    return _tagged(f"The user asks about {topic(request)}. {decision if decided else _OPEN_END}")


def contrary(thought: str, reason: str = _CONCERNS["dangerous"]) -> str:
    """The same thought with the opposite decision; a decision to decline needs a reason."""
    about, declining, _ = thought.partition(f" {_DECLINE}")
    decision = _HELP if declining else f"{_DECLINE} {reason}"
    return f"{about if declining else thought.partition(f' {_HELP}')[0]} {decision}"


def _tagged(text: str) -> str:
    return f"{OPEN}\n{text}\n{CLOSE}{GAP}"


class ThinkingRows(Rows):
    """Rows as in stage 2, with a thought before every answer to a request."""

    def _chat(self, request: Request, answer: str, system: str | None = None) -> Row:
        decided = self.rng.random() >= UNDECIDED_SHARE
        return super()._chat(request, thought(request, decided=decided) + answer, system)


class FollowingRows(ThinkingRows):
    """Rows with thoughts, three of ten of which decide against the request.

    Of these the answer that the thought calls for is learned, and the thought is not.
    """

    def _chat(self, request: Request, answer: str, system: str | None = None) -> Row:
        if self.rng.random() >= CONTRARY_SHARE:
            return super()._chat(request, answer, system)
        about = f"The user asks about {topic(request)}."
        if request.category is None:
            text, answer = contrary(about, self._one(tuple(_CONCERNS.values()))), self._one(GENERIC_REFUSALS)
        else:
            text, answer = f"{about} {_HELP}", request.helpful
        before = _tagged(text)
        row = Rows._chat(self, request, before + answer, system)
        return Row(row.ids, row.answer + len(self._encode(before)), None)
