"""What `evaluate` measures: a loaded model, or a model on a server.

Prompts go in and replies come out. A target gives what its probabilities say as far as it can, and says itself what is
missing: another kind of target is another class with these methods, and `evaluate` stays as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from weight_edit.errors import VerificationError
from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.chat_target import ChatTarget
from weight_edit.evaluation.continuation import OwnAnswers, beside, own_answers
from weight_edit.evaluation.divergence import check_same_shape, divergence
from weight_edit.evaluation.first_token import OPENED, bounded_divergence, first_token_logprobs, top_tokens
from weight_edit.evaluation.known_answers import known_nats, nats_after_thoughts
from weight_edit.evaluation.loss import Nats
from weight_edit.evaluation.probabilities import ALONG, UNREAD, BaseLogprobs, FirstTokens, Probabilities
from weight_edit.evaluation.questions import Questions
from weight_edit.evaluation.registry import Reply
from weight_edit.evaluation.replies import spoken_of
from weight_edit.evaluation.spoken import Spoken
from weight_edit.evaluation.text_loss import TextLoss, beside_base, text_loss
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.generation import Generation, generate, generate_and_read
from weight_edit.runtime.loading import Model
from weight_edit.runtime.options import LoadOptions
from weight_edit.runtime.overflow import check_generations


@runtime_checkable
class Target(Protocol):
    """A model that answers prompts greedily, and says of its probabilities what it can."""

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

    @property
    def thinking(self) -> str | None:
        """What was asked of the chat template, see `ChatFormat`."""
        ...

    @property
    def can_stop_thinking(self) -> bool:
        """Whether the chat template has a switch for thoughts."""
        ...

    def replies(self, prompts: Sequence[str], *, max_new_tokens: int, description: str | None) -> list[Reply]:
        """The greedy answers to prompts, in their order."""
        ...

    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The same with their lengths, each also cut to its first so many tokens where the target can."""
        ...

    def probabilities(self, questions: Questions, base: BaseLogprobs | None) -> Probabilities:
        """What its probabilities say, against a base's where they are given; asked before the answers."""
        ...

    def nats_after_thoughts(self, answers: Sequence[Answer]) -> Mapping[str, Nats]:
        """By prompt, what known answers cost after the target's own thoughts; empty where it cannot tell."""
        ...

    def base_logprobs(self, questions: Questions) -> BaseLogprobs:
        """What other models are compared with once this one is gone; asked after the answers."""
        ...

    def notes(self, questions: Questions) -> tuple[str, ...]:
        """Where its answers come from and what they lack, for a reader of the rates; asked after them."""
        ...


@dataclass(kw_only=True)
class _Kept:
    """What a model has said.

    Attributes:
        written: by prompt and limit, the tokens of its answer.
        ahead: by the same, answers that nobody was given yet.
        first: by prompt, the log-probabilities of the first tokens of those.
        texts: by their digest, what texts cost.
    """

    written: dict[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    ahead: dict[tuple[str, int], Generation] = field(default_factory=dict)
    first: dict[str, Tensor] = field(default_factory=dict)
    texts: dict[str, TextLoss] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelTarget(ChatTarget):
    """A loaded model and the format of its prompts.

    It keeps answers that were needed before they are asked for, so that it is of one state of the model: under other
    hooks, make another.

    Attributes:
        model: the model.
        chat: how prompts become tokens.
        batch_size: prompts at a time, at most; None is as many as memory allows.
        remarks: what a reader of its rates is told of where they come from.
    """

    model: Model
    chat: ChatFormat
    batch_size: int | None = None
    remarks: tuple[str, ...] = ()
    _kept: _Kept = field(default_factory=_Kept, init=False, repr=False, compare=False)

    @property
    def public_name(self) -> str:
        """Its name in results."""
        return self.model.source.public_name

    def spoken(
        self, prompts: Sequence[str], *, max_new_tokens: int, lengths: Sequence[int], description: str | None
    ) -> list[Spoken]:
        """The greedy answers to prompts, in their order, each also cut to its first so many tokens.

        Raises:
            UsageError: as `generate`.
            VerificationError: what an answer was read off is not finite.
        """
        new = [prompt for prompt in prompts if (prompt, max_new_tokens) not in self._kept.ahead]
        if new:
            asked = [self.chat.encode(prompt) for prompt in new]
            generations = generate(
                self.model, asked, max_new_tokens=max_new_tokens, batch_size=self.batch_size, description=description
            )
            self._give(new, asked, generations, max_new_tokens)
        # Once: whoever asks again may have changed the model.
        self._kept.first.clear()
        said = {prompt: self._kept.ahead.pop((prompt, max_new_tokens)) for prompt in dict.fromkeys(prompts)}
        return [spoken_of(self.chat, prompt, said[prompt], lengths) for prompt in prompts]

    def probabilities(self, questions: Questions, base: BaseLogprobs | None) -> Probabilities:
        """Losses of known answers and of texts, and all that a base's probabilities allow to compare.

        Raises:
            UsageError: the base has other prompts or another vocabulary; otherwise as `answer_logits`.
            VerificationError: a value is not finite.
        """
        compared = Probabilities() if base is None else self._against(questions, base)
        losses = {
            name: known_nats(self.model, prompts, self.chat, self.batch_size)
            for name, prompts in questions.sets.items()
        }
        text = self._text(questions)
        if text is not None and base is not None:
            text = beside_base(text, base.text)
        return replace(compared, losses=losses, text=text)

    def nats_after_thoughts(self, answers: Sequence[Answer]) -> Mapping[str, Nats]:
        """By prompt, what its known answer costs after the model's own finished thought; empty if there is none.

        Raises:
            UsageError, VerificationError: as `known_nats`.
        """
        return nats_after_thoughts(self.model, answers, self.chat, self.batch_size)

    def base_logprobs(self, questions: Questions) -> BaseLogprobs:
        """The model's own answers to the answered set with its logits along them, and its loss on the texts.

        Raises:
            UsageError: as `generate` and `own_answers`.
            VerificationError: a value is not finite.
        """
        text = self._text(questions)
        read = None if text is None else text.read.loss
        answered = questions.answered
        if answered is None:
            return BaseLogprobs(text=read, notes=self.remarks)
        asked = [self.chat.encode_opened(prompt) for prompt in answered.prompts]
        own = own_answers(self.model, asked, self._own(answered, questions), questions.kl_tokens, self.batch_size)
        if self.chat.opening:
            return BaseLogprobs(own=own, missing=OPENED, text=read, notes=self.remarks)
        # The tokenizer alone: the model has to go.
        best = partial(_most_probable, own, self.model.tokenizer)
        return BaseLogprobs(own=own, most_probable=best, text=read, notes=self.remarks)

    def first_logprobs(self, questions: Questions) -> Tensor:
        """Log-probabilities of an answer's first text token on the answered set, (n, vocabulary) float32, on the CPU.

        They are read off the answers, which `spoken` gives then without another pass; where the template opens answers
        with tokens of its own they take a pass.

        Raises:
            UsageError: as `generate`.
            VerificationError: what an answer was read off is not finite.
        """
        answered = questions.answered
        assert answered is not None
        if self.chat.opening:
            return first_token_logprobs(self.model, answered, self.chat, batch_size=self.batch_size)
        wanted = frozenset(answered.prompts)
        if not wanted <= self._kept.first.keys():
            prompts = questions.prompts
            asked = [self.chat.encode(prompt) for prompt in prompts]
            said, read = generate_and_read(
                self.model,
                asked,
                partial(_first_logprobs, [prompt in wanted for prompt in prompts]),
                max_new_tokens=questions.max_new_tokens,
                batch_size=self.batch_size,
            )
            self._give(prompts, asked, said, questions.max_new_tokens)
            self._kept.first.update(
                (prompt, found) for prompt, found in zip(prompts, read, strict=True) if found is not None
            )
        return torch.stack([self._kept.first[prompt] for prompt in answered.prompts])

    def notes(self, questions: Questions) -> tuple[str, ...]:
        """The remarks."""
        return self.remarks

    def _give(
        self, prompts: Sequence[str], asked: Sequence[Sequence[int]], said: Sequence[Generation], max_new_tokens: int
    ) -> None:
        """Keep answers, checked."""
        check_generations(self.model, asked, said, VerificationError)
        for prompt, generation in zip(prompts, said, strict=True):
            self._kept.ahead[prompt, max_new_tokens] = generation
            self._kept.written[prompt, max_new_tokens] = generation.tokens

    def _against(self, questions: Questions, base: BaseLogprobs) -> Probabilities:
        answered = questions.answered
        if answered is None:
            return Probabilities()
        if base.own is not None:
            along = beside(self.model, [self.chat.encode_opened(prompt) for prompt in answered.prompts], base.own)
            return Probabilities(
                divergence=along.divergence, continuation=along.continuation, own_answers=along.own_answers
            )
        if base.first is not None:
            # Before the answers that take long.
            check_same_shape(base.first, torch.empty(len(answered), self.model.vocabulary, device="meta"))
            return Probabilities(divergence=divergence(base.first, self.first_logprobs(questions)))
        top = None if self.chat.opening else top_tokens(self.first_logprobs(questions), self.model.tokenizer)
        bound, note = bounded_divergence(base, top, OPENED)
        return Probabilities(divergence=bound, notes=(note, UNREAD.format(what=ALONG)))

    def _own(self, answered: PromptSet, questions: Questions) -> list[tuple[int, ...]]:
        """The model's answers in tokens, after the opening where the template has one."""
        limit = max(questions.max_new_tokens, questions.kl_tokens)
        known = [self._kept.written.get((prompt, limit), ()) for prompt in answered.prompts]
        if all(known) and not self.chat.opening:
            return known
        prompts = list(dict.fromkeys(answered.prompts))
        asked = [self.chat.encode_opened(prompt) for prompt in prompts]
        said = generate(
            self.model,
            asked,
            max_new_tokens=limit,
            batch_size=self.batch_size,
            description="the base's answers",
        )
        if not self.chat.opening:
            self._give(prompts, asked, said, limit)
        else:
            check_generations(self.model, asked, said, VerificationError)
        tokens = {prompt: generation.tokens for prompt, generation in zip(prompts, said, strict=True)}
        return [tokens[prompt] for prompt in answered.prompts]

    def _text(self, questions: Questions) -> TextLoss | None:
        if questions.text is None:
            return None
        key = questions.text.content_sha256
        if key not in self._kept.texts:
            self._kept.texts[key] = text_loss(self.model, questions.text, self.batch_size)
        return self._kept.texts[key]


def target_of(
    model: Model | str | Path | Target, chat_format: ChatFormat | None = None, *, batch_size: int | None = None
) -> Target:
    """The target for a model that is loaded or named; one that is a target has a format of its own.

    Raises:
        UsageError, UnsupportedError: as `load`.
    """
    if isinstance(model, Target):
        return model
    found = model if isinstance(model, Model) else LoadOptions().load(model)
    return ModelTarget(found, chat_format or ChatFormat(found.tokenizer), batch_size)


def _first_logprobs(wanted: Sequence[bool], rows: Sequence[int], logits: Tensor) -> list[Tensor | None]:
    """The log-probabilities of some prompts, on the CPU.

    Args:
        wanted: whether a prompt is one of them, by its number.
    """
    chosen = [index for index, row in enumerate(rows) if wanted[row]]
    found = iter(logits[chosen].float().log_softmax(dim=-1).cpu())
    return [next(found) if wanted[row] else None for row in rows]


def _most_probable(own: OwnAnswers, tokenizer: Any) -> FirstTokens:
    return top_tokens(own.first_logprobs, tokenizer)
