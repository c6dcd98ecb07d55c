"""Faithfulness: the edited checkpoint's logits against the hooked base's."""

from collections.abc import Hashable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

ENTRIES = 1 << 18
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
    """A running comparison of two models' logits, by parts of the vocabulary; a NaN anywhere makes the result NaN."""

    def __init__(self) -> None:
        self._largest = self._total = self._scale = 0.0
        self._entries = 0
        self._at: dict[Hashable, _Divergence] = {}

    def add(self, wanted: Tensor, given: Tensor) -> None:
        """Compare the logits of some tokens, (tokens, vocabulary) in any float dtype.

        Raises:
            ValueError: tensors of two shapes.
        """
        # A few tokens at a time: there are some ten copies of what is compared, in float64.
        count = max(1, ENTRIES // max(1, wanted.shape[-1]))
        for p, q in zip(wanted.split(count), given.split(count), strict=True):
            self.add_part(len(self._at), p, q)

    def add_part(self, tokens: Hashable, wanted: Tensor, given: Tensor) -> None:
        """Compare a part of the logits of some tokens, (tokens, part of the vocabulary); parts come in their order.

        Args:
            tokens: which they are, the same for each part.

        Raises:
            ValueError: tensors of two shapes.
        """
        if wanted.shape != given.shape:
            raise ValueError(f"logits of {tuple(wanted.shape)} and {tuple(given.shape)} cannot be compared")
        # On the CPU, because some accelerators have no float64.
        p, q = wanted.cpu().double(), given.cpu().double()
        gap = (p - q).abs()
        worst = float(gap.max())
        self._largest = worst if not worst <= self._largest else self._largest
        self._total += float(gap.sum())
        self._scale = max(self._scale, float(p.abs().max()))
        self._entries += p.numel()
        if tokens not in self._at:
            self._at[tokens] = _Divergence(len(p))
        self._at[tokens].add(p, q)

    @property
    def result(self) -> Agreement:
        """The agreement over all logits added so far.

        Raises:
            ValueError: nothing was.
        """
        if not self._entries:
            raise ValueError("no logits were compared")
        each = self._at.values()
        tokens = sum(len(some.divergence) for some in each)
        return Agreement(
            largest=self._largest,
            mean=self._total / self._entries,
            scale=self._scale,
            kl=sum(float(some.divergence.sum()) for some in each) / tokens,
            argmax=sum(some.equal for some in each) / tokens,
            tokens=tokens,
        )


class _Divergence:
    """The KL divergence of some tokens' next-token distributions, by parts of the vocabulary.

    With the logits p and q, it is sum_v softmax(p)_v (p_v - q_v) - logsumexp(p) + logsumexp(q); the three sums are kept
    relative to the largest logits so far, as a softmax on the way is.
    """

    def __init__(self, tokens: int) -> None:
        self._p, self._q = _LogSum(tokens), _LogSum(tokens)
        self._weighted = torch.zeros(tokens, dtype=torch.float64)

    def add(self, p: Tensor, q: Tensor) -> None:
        """The next part, (tokens, part of the vocabulary) float64."""
        terms, shrunk = self._p.add(p)
        self._q.add(q)
        # Where the first gives probability 0 the term is 0, whatever the other gives.
        terms = torch.where(terms == 0, 0.0, terms * (p - q))
        self._weighted = self._weighted * shrunk + terms.sum(dim=-1)

    @property
    def divergence(self) -> Tensor:
        """Of each token, in nats; never negative, NaN where a logit was."""
        return (self._weighted / self._p.total - self._p.value + self._q.value).clamp(min=0.0)

    @property
    def equal(self) -> int:
        """The number of tokens whose likeliest next token is the same."""
        return int((self._p.likeliest == self._q.likeliest).sum())


class _LogSum:
    """The logarithm of a sum of exponentials, by parts."""

    def __init__(self, tokens: int) -> None:
        self.total = torch.zeros(tokens, dtype=torch.float64)
        self.likeliest = torch.zeros(tokens, dtype=torch.long)
        self._most = torch.full((tokens,), -torch.inf, dtype=torch.float64)
        self._seen = 0

    def add(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Add a part; its exponentials over the largest so far, and what those before are to be multiplied by."""
        most, place = x.max(dim=-1)
        self.likeliest = torch.where(most > self._most, place + self._seen, self.likeliest)
        self._seen += x.shape[-1]
        before, self._most = self._most, torch.maximum(self._most, most)
        # Of nothing but minus infinities there is no largest.
        about = torch.where(self._most == -torch.inf, 0.0, self._most)
        terms, shrunk = (x - about[:, None]).exp_(), (before - about).exp()
        self.total = self.total * shrunk + terms.sum(dim=-1)
        return terms, shrunk

    @property
    def value(self) -> Tensor:
        """The logarithm so far."""
        return self._most + self.total.log()
