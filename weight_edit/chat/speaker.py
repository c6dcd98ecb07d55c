"""One side of a chat, and its answer while it is given."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from weight_edit.chat.passes import CachedPasses
from weight_edit.chat.pieces import TextPieces
from weight_edit.chat.sampling import Chooser, Sampling
from weight_edit.chat.turns import Answer, Reason, Token
from weight_edit.prompts.answers import answer_text
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.thoughts import split_thought
from weight_edit.runtime.generation import end_tokens
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs


@dataclass(kw_only=True)
class Side:
    """One of a chat's two sides, or its only one.

    Attributes:
        name: for people.
        model: that speaks.
        format: how the conversation becomes tokens.
        passes: the model's passes, under the edit where this side has it.
        edited: whether the session's edit is made of this side.
    """

    name: str
    model: Model
    format: ChatFormat
    passes: CachedPasses
    edited: bool = False


class Speaker:
    """A side's answer, a token at a time.

    Args:
        number: of the side.
        side: who answers.
        sequence: token ids of the conversation up to the start of the answer.
        sampling: how tokens are taken.
        draw: see `Chooser`.
        edit: the edit that it is given under, in one line.
    """

    def __init__(
        self,
        number: int,
        side: Side,
        sequence: Sequence[int],
        sampling: Sampling,
        *,
        draw: tuple[int, int],
        edit: str | None,
    ) -> None:
        self.number, self.side = number, side
        self.reason: Reason | None = None
        self._sequence, self._prompt = list(sequence), len(sequence)
        self._chooser, self._most, self._edit = Chooser(sampling, draw), sampling.max_new_tokens, edit
        self._ends = end_tokens(side.model) | {side.format.end_of_turn}
        self._texts = TextPieces(side.model.tokenizer)
        self._pieces: list[str] = []
        self._components: list[float] = []
        self._opened = side.format.opens_thought
        self._seconds = 0.0

    def step(self) -> Token | None:
        """The next token, with one pass of the model; None where it ends the answer.

        Raises:
            UsageError: the logits are not finite, or as `CachedPasses.read`.
        """
        began = time.monotonic()
        read = self.side.passes.read(self._sequence)
        if bool(read.logits.isnan().any()):
            check_logprobs(self.side.model, [self._sequence], [read.logits])
        token = self._chooser.choose(read.logits)
        self._sequence.append(token)
        self._seconds += time.monotonic() - began
        if token in self._ends:
            self.reason = "end"
            return None
        text = self._texts.push(token)
        self._pieces.append(text)
        if read.component is not None:
            self._components.append(read.component)
        if len(self._pieces) >= self._most:
            self.reason = "length"
        return Token(side=self.number, text=text, token=token, component=read.component, thought=self._thinks())

    def rest(self) -> Token | None:
        """What was held back of the text when the answer is over; None where nothing was."""
        text = self._texts.rest()
        if not text:
            return None
        self._pieces[-1] += text
        return Token(side=self.number, text=text, token=None, component=None, thought=self._thinks())

    def answer(self) -> Answer:
        """The answer as far as it has come."""
        tokens = self._sequence[self._prompt :]
        text, _ = answer_text(self.side.format, tokens, self.reason == "end")
        thinking = split_thought(text, opened=self._opened)
        return Answer(
            text=text if thinking is None else thinking.answer or "",
            thought=None if thinking is None else thinking.thought,
            pieces=tuple(self._pieces),
            components=tuple(self._components),
            reason=self.reason or "stopped",
            edit=self._edit,
            seconds=self._seconds,
        )

    def _thinks(self) -> bool:
        """Whether the answer so far is a thought that has not ended."""
        thinking = split_thought("".join(self._pieces), opened=self._opened)
        return thinking is not None and thinking.answer is None
