"""What a model's probabilities say: losses, and divergences from a base. Not every target can give all of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from weight_edit.evaluation.continuation import ContinuationDivergence, OwnAnswers
from weight_edit.evaluation.divergence import Divergence
from weight_edit.evaluation.loss import Loss, LossBeside, Nats
from weight_edit.evaluation.text_loss import TextLoss

FirstTokens = Sequence[Mapping[str, float]]
"""The most probable first tokens of each answer as texts, with their log-probabilities."""

ALONG = "the divergence over the base's answers, with their cross-entropy,"
UNREAD = "{what} is missing: a chat server gives no probabilities of given texts"
"""The note on what a served model lacks."""


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """The figures of a model that need its probabilities; what is missing is None, and a note says why.

    Attributes:
        divergence: of the first token, from the base.
        continuation: over the base's own answers to the answered set.
        own_answers: the cross-entropy of those answers, beside the base's.
        text: the cross-entropy of the texts.
        losses: by prompt set and prompt, what its known answer costs.
        notes: for a reader: what is missing or a bound, and why.
    """

    divergence: Divergence | None = None
    continuation: ContinuationDivergence | None = None
    own_answers: LossBeside | None = None
    text: TextLoss | None = None
    losses: Mapping[str, Mapping[str, Nats]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class BaseLogprobs:
    """A base's log-probabilities, kept for models that are compared with it once it is gone.

    Attributes:
        own: its answers to the answered set with its logits along them; None where it has none to give.
        first: its log-probabilities of the first token alone, (n, vocabulary), where there is no more.
        most_probable: gives its most probable first tokens; None where it has none to give.
        missing: why it has none.
        text: its cross-entropy of the texts.
        notes: for a reader of figures that compare with it.
    """

    own: OwnAnswers | None = None
    first: Tensor | None = None
    most_probable: Callable[[], FirstTokens] | None = None
    missing: str | None = None
    text: Loss | None = None
    notes: tuple[str, ...] = ()
