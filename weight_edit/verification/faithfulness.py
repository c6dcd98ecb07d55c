"""Faithfulness: the edited checkpoint's logits against the hooked base's."""

from dataclasses import asdict, dataclass

from torch import Tensor

from weight_edit.evaluation.kl import kl_divergence

_ENTRIES = 1 << 20
"""Logits compared at a time."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The agreement of two models' logits over all tokens of some prompts.

    Attributes:
        largest: largest absolute difference of a logit.
        mean: mean absolute difference.
        scale: largest absolute logit, to judge the differences by.
        kl: mean KL divergence of the next-token distributions, in nats.
        argmax: fraction of tokens at which both predict the same next token.
        tokens: number of tokens compared.
    """

    largest: float
    mean: float
    scale: float
    kl: float
    argmax: float
    tokens: int

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON."""
        return asdict(self)


class Comparison:
    """A running comparison of two models' logits; a NaN anywhere makes the result NaN."""

    def __init__(self) -> None:
        self._largest = self._total = self._scale = self._divergence = 0.0
        self._equal = self._tokens = self._entries = 0

    def add(self, wanted: Tensor, given: Tensor) -> None:
        """Compare the logits of some tokens, (tokens, vocabulary) in any float dtype, on the CPU.

        Raises:
            ValueError: tensors of two shapes.
        """
        if wanted.shape != given.shape:
            raise ValueError(f"logits of {tuple(wanted.shape)} and {tuple(given.shape)} cannot be compared")
        # A few tokens at a time: there are some ten copies of what is compared, in float64.
        count = max(1, _ENTRIES // max(1, wanted.shape[-1]))
        for p, q in zip(wanted.split(count), given.split(count), strict=True):
            self._add(p.double(), q.double())

    def _add(self, p: Tensor, q: Tensor) -> None:
        gap = (p - q).abs()
        worst = float(gap.max())
        self._largest = worst if not worst <= self._largest else self._largest
        self._total += float(gap.sum())
        self._scale = max(self._scale, float(p.abs().max()))
        self._divergence += float(kl_divergence(p, q).sum())
        self._equal += int((p.argmax(-1) == q.argmax(-1)).sum())
        self._tokens += len(p)
        self._entries += p.numel()

    @property
    def result(self) -> Agreement:
        """The agreement over all logits added so far.

        Raises:
            ValueError: nothing was.
        """
        if not self._entries:
            raise ValueError("no logits were compared")
        tokens = self._tokens
        return Agreement(
            largest=self._largest,
            mean=self._total / self._entries,
            scale=self._scale,
            kl=self._divergence / tokens,
            argmax=self._equal / tokens,
            tokens=tokens,
        )
