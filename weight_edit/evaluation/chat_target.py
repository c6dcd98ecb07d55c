"""A target whose prompts become tokens here, by a chat format."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from weight_edit.evaluation.registry import Reply
from weight_edit.evaluation.spoken import Spoken
from weight_edit.prompts.chat import ChatFormat


class ChatTarget(ABC):
    """The part of a `Target` that the chat format of its prompts answers.

    Attributes:
        chat: how prompts become tokens.
    """

    chat: ChatFormat

    @property
    def system(self) -> str | None:
        """The system prompt."""
        return self.chat.system

    @property
    def template(self) -> str | None:
        """The name of the chat template, see `ChatFormat`."""
        return self.chat.template

    @property
    def template_args(self) -> Mapping[str, Any]:
        """Variables of the chat template."""
        return self.chat.template_args

    @property
    def thinking(self) -> str | None:
        """What was asked of the chat template, see `ChatFormat`."""
        return self.chat.thinking

    @property
    def can_stop_thinking(self) -> bool:
        """Whether the chat template has a switch for thoughts."""
        return bool(self.chat.thinking_variables)

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int, description: str | None) -> list[Reply]:
        """The greedy answers to prompts, in their order.

        Raises:
            UsageError, VerificationError: as `spoken`.
        """
        found = self.spoken(prompts, max_new_tokens=max_new_tokens, lengths=(), description=description)
        return [each.reply for each in found]

    @abstractmethod
    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The same with their lengths, each also cut to its first so many tokens."""
