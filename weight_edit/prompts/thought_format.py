"""A chat format whose prompts include a given thought."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.prompts.chat import SENTINELS, ChatFormat, common_suffix
from weight_edit.prompts.templates import Scalar
from weight_edit.prompts.thoughts import GAP


class ThoughtFormat(ChatFormat):
    """A chat format whose prompts end after a given thought, so that the answer follows.

    What takes a `ChatFormat` takes this one: `find_directions` then looks at the end of the thought, and `evaluate`
    scores the answer with the thought kept.

    Args:
        tokenizer, system, template, template_args: as `ChatFormat`.
        thoughts: prompt to thought, as `Answer.thought` and `think` give them.
        gap: what stands between `</think>` and the answer; "" ends prompts right after `</think>`, where the first
            token that the model writes says nothing about the answer.

    Raises:
        UsageError: as `ChatFormat`; or the template closes the thought itself, which leaves no room for one, or has
            thoughts in a channel of their own.
    """

    def __init__(
        self,
        tokenizer: Any,
        thoughts: Mapping[str, str],
        *,
        system: str | None = None,
        template: str | None = None,
        template_args: Mapping[str, Scalar] | None = None,
        gap: str = GAP,
    ) -> None:
        super().__init__(tokenizer, system=system, template=template, template_args=template_args)
        if self.opening:
            raise UsageError(
                f"the chat template opens answers with {str(tokenizer.decode(list(self.opening)))!r}, so a thought "
                f"between {' and '.join(self.thought_marks)} is none of this model's"
            )
        self.thoughts = thoughts
        self.gap = gap
        self._opened = super().opens_thought
        closing = self.thought_marks.closing
        if closing in self._ending and not self._opened:
            raise UsageError(
                f"the chat template writes {closing} itself, so no thought can be put there; choose one that lets the "
                "model think"
            )

    def encode(self, prompt: str) -> list[int]:
        """Token ids of the conversation up to the end of the thought and the gap.

        Raises:
            UsageError: there is no thought for this prompt, or the template fails on it.
        """
        if prompt not in self.thoughts:
            shown = prompt if len(prompt) <= 60 else f"{prompt[:57]}..."
            raise UsageError(f"there is no thought for the prompt {shown!r}; let the model think about it first")
        return self._with(prompt, self.thoughts[prompt])

    @cached_property
    def suffix(self) -> tuple[int, ...]:
        """The common last tokens of all thoughts: `</think>` and the gap."""
        return tuple(common_suffix([self._with("alpha", f"\n{thought}\n") for thought in SENTINELS]))

    @property
    def opens_thought(self) -> bool:
        """False: the thought is complete within these prompts."""
        return False

    def answer_tokens(self, text: str) -> list[int]:
        """The tokens of an answer after the thought, then the end of the turn."""
        # Not read off a conversation: templates drop or empty the thoughts of turns that are over.
        return self._plain_tokens(text) + ([] if self.end_of_turn is None else [self.end_of_turn])

    def _with(self, prompt: str, thought: str) -> list[int]:
        # The tags become the tokenizer's own tokens where it has them: a thought is the model's text, not a user's.
        opening, closing = self.thought_marks
        text = f"{'' if self._opened else opening}{thought}{closing}{self.gap}"
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return [*self._prompt(prompt), *tokens]
