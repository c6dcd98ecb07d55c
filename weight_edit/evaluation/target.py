"""What `evaluate` measures: a loaded model, or a model on a server. Prompts go in, replies come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from weight_edit.errors import VerificationError
from weight_edit.evaluation.endpoint.endpoint import Endpoint
from weight_edit.evaluation.registry import Reply
from weight_edit.evaluation.spoken import Spoken
from weight_edit.prompts.answers import answer_text
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.generation import Generation, generate, prefix
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_generations


class Target(Protocol):
    """A model that answers prompts greedily."""

    @property
    def public_name(self) -> str:
        """Its name in results."""
        ...

    @property
    def system(self) -> str | None:
        """The system prompt."""
        ...

    @property
    def template(self) -> str | None:
        """The name of the chat template, see `ChatFormat`."""
        ...

    @property
    def template_args(self) -> Mapping[str, Any]:
        """Variables of the chat template."""
        ...

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int, description: str | None) -> list[Reply]:
        """The greedy answers to prompts, in their order."""
        ...

    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The same with their lengths, each also cut to its first so many tokens."""
        ...


@dataclass(frozen=True)
class ModelTarget:
    """A loaded model and the format of its prompts.

    Attributes:
        model: the model.
        chat: how prompts become tokens.
        batch_size: prompts at a time.
    """

    model: Model
    chat: ChatFormat
    batch_size: int = 32

    @property
    def public_name(self) -> str:
        """Its name in results."""
        return self.model.source.public_name

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

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int, description: str | None) -> list[Reply]:
        """The greedy answers to prompts, in their order.

        Raises:
            UsageError, VerificationError: as `spoken`.
        """
        found = self.spoken(prompts, max_new_tokens=max_new_tokens, lengths=(), description=description)
        return [each.reply for each in found]

    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The greedy answers to prompts, in their order, each also cut to its first so many tokens.

        Raises:
            UsageError: as `generate`.
            VerificationError: what an answer was read off is not finite.
        """
        asked = [self.chat.encode(prompt) for prompt in prompts]
        generations = generate(
            self.model, asked, max_new_tokens=max_new_tokens, batch_size=self.batch_size, description=description
        )
        check_generations(self.model, asked, generations, VerificationError)
        found = []
        for prompt, generation in zip(prompts, generations, strict=True):
            reply = self._reply(prompt, generation)
            cut = {
                length: self._reply(prompt, prefix(self.model, generation, length))
                if length < len(generation.tokens)
                else reply
                for length in lengths
            }
            found.append(Spoken(reply=reply, tokens=self._count(generation), cut=cut))
        return found

    @cached_property
    def _control(self) -> tuple[str, ...]:
        """The tokenizer's special tokens."""
        return tuple(map(str, self.model.tokenizer.all_special_tokens))

    def _reply(self, prompt: str, generation: Generation) -> Reply:
        text, finished = answer_text(self.chat, generation.tokens, generation.finished)
        opened = self.chat.opens_thought
        return Reply(prompt=prompt, text=text, finished=finished, opened=opened, control=self._control)

    def _count(self, generation: Generation) -> int:
        # A checkpoint's generation config may not know the template's end of turn, but the answer ends there; where
        # the template opens answers, thoughts end so, too.
        if not self.chat.opening and self.chat.end_of_turn in generation.tokens:
            return generation.tokens.index(self.chat.end_of_turn)
        return len(generation.tokens) - generation.finished


def target_of(
    model: Model | Endpoint, chat_format: ChatFormat | None, *, batch_size: int = 32
) -> ModelTarget | Endpoint:
    """The target for a model, in memory or on a server, which has a format of its own."""
    if isinstance(model, Endpoint):
        return model
    return ModelTarget(model, chat_format or ChatFormat(model.tokenizer), batch_size)
