"""Cross-entropy and perplexity of texts that nobody asked for: what an edit costs beside chats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.loss import Loss, LossBeside, loss_of, nats_of
from weight_edit.prompts.sets import PromptSet, public_name
from weight_edit.runtime.forward import answer_logprobs, most_positions
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs

TEXT_TOKENS = 512
"""The tokens of a text that are read: the logits of so many are half a gigabyte in float32 for a vocabulary of 256k."""


@dataclass(frozen=True, kw_only=True)
class TextLoss:
    """The cross-entropy of a set of texts, and the base's on the same ones.

    Attributes:
        texts: the set's name.
        sha256: of the texts.
        read: the loss, beside the base's where there is one.
        cut: texts of which only the beginning was read.
        source: where a public set is from.
    """

    texts: str
    sha256: str
    read: LossBeside
    cut: int = 0
    source: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        source = {"source": dict(self.source)} if self.source else {}
        return {"texts": self.texts, "sha256": self.sha256, **self.read.to_dict(), "cut": self.cut, **source}


def text_loss(model: Model, texts: PromptSet, batch_size: int | None = None) -> TextLoss:
    """The cross-entropy of texts, without a chat template: as the tokenizer begins a text, to its last token.

    The first token is given; where the tokenizer begins texts with a token of its own, that is the one. Of long texts
    the first `TEXT_TOKENS` are read. A text that looks like a special token is text.

    Raises:
        UsageError: no text has two tokens; otherwise as `answer_logprobs`.
        VerificationError: the logits are not finite.
    """
    most = min(TEXT_TOKENS, most_positions(model) or TEXT_TOKENS)
    read, cut = text_tokens(model.tokenizer, texts, most)
    begun, rest = [tokens[:1] for tokens in read], [tokens[1:] for tokens in read]
    logprobs = answer_logprobs(model, begun, rest, batch_size=batch_size, description="texts")
    check_logprobs(model, read, logprobs, VerificationError)
    return text_loss_of(texts, logprobs, cut)


def text_tokens(tokenizer: Any, texts: PromptSet, most: int) -> tuple[list[list[int]], int]:
    """The tokens of each text that are read, two at least, and how many texts are cut.

    Raises:
        UsageError: no text has two tokens.
    """
    whole = [_tokens(tokenizer, text) for text in texts.prompts]
    read = [tokens[:most] for tokens in whole if len(tokens) > 1]
    if not read:
        raise UsageError(f"`text` {texts.name}: no text has two tokens; give longer ones", option="text")
    return read, sum(len(tokens) > most for tokens in whole)


def text_loss_of(texts: PromptSet, logprobs: Sequence[Tensor], cut: int) -> TextLoss:
    """The loss from the log-probabilities of the texts' tokens but the first."""
    return TextLoss(
        texts=public_name(texts.name),
        sha256=texts.sha256,
        read=LossBeside(loss=loss_of(nats_of(logprobs))),
        cut=cut,
        source=texts.source,
    )


def _tokens(tokenizer: Any, text: str) -> list[int]:
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=True, split_special_tokens=True)
    # Some tokenizers also close the text; what is measured is the text.
    return tokens[:-1] if len(tokens) > 1 and tokens[-1] == tokenizer.eos_token_id else tokens


def beside_base(found: TextLoss, base: Loss | None) -> TextLoss:
    """The same loss beside the base's on the same texts."""
    read = LossBeside(loss=found.read.loss, base=base)
    return TextLoss(texts=found.texts, sha256=found.sha256, read=read, cut=found.cut, source=found.source)
