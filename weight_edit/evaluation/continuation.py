"""A base's own greedy answers, its probabilities along them, and another model's beside these.

Both models read prompt and answer as given (teacher forcing), in one pass each: it gives the divergence at every
position and the cross-entropy of the whole answer. The base's logits wait in a temporary file until the other model is
loaded, bit for bit in the dtype that they came in: of 100 prompts, 16 tokens and a vocabulary of 150k in bfloat16 that
is half a gigabyte, which memory need not have room for beside a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from weight_edit.errors import UsageError, VerificationError
from weight_edit.evaluation.divergence import (
    Divergence,
    check_finite,
    check_same_shape,
    divergence_over,
    mean_interval,
)
from weight_edit.evaluation.kl import kl_divergence
from weight_edit.evaluation.loss import Loss, LossBeside, loss_of, nats_of
from weight_edit.runtime.forward import answer_logits, answers_at_once, token_logprobs
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_logprobs
from weight_edit.runtime.spool import Spool

_ROWS = 16  # positions in float64 at a time: 16 of a vocabulary of 256k are 33 MB
_KEPT = "base"


@dataclass(frozen=True, kw_only=True)
class ContinuationDivergence:
    """KL(base || edited) in nats over the first tokens of the base's own greedy answers.

    An answer that ends earlier has fewer positions, its end token's the last. With one token it is the divergence of
    the first token.

    Attributes:
        tokens: positions of an answer, at most.
        mean: over prompts, of the mean over the positions of each.
        per_position: the mean over prompts at each position, the first token first.
        counts: the prompts that have the position.
        per_prompt: the mean over positions, (n,) float64.
    """

    tokens: int
    mean: float
    per_position: tuple[float, ...]
    counts: tuple[int, ...]
    per_prompt: Tensor = field(repr=False, compare=False)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the mean's 95% interval over prompts, see `mean_interval`."""
        return mean_interval(self.per_prompt)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: tokens, mean, low, high, per_position, counts, per_prompt."""
        low, high = self.interval or (None, None)
        return {
            "tokens": self.tokens,
            "mean": self.mean,
            "low": low,
            "high": high,
            "per_position": list(self.per_position),
            "counts": list(self.counts),
            "per_prompt": self.per_prompt.tolist(),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnAnswers:
    """A base's greedy answers, and its probabilities along them.

    Attributes:
        tokens: of each answer, the end token included.
        logits: of the first `kl_tokens` positions of each, (positions, vocabulary).
        kl_tokens: positions whose logits are kept.
        loss: of the base on its answers.
        batch_size: of the pass; with the same one a model that is the base has no divergence.
    """

    tokens: tuple[tuple[int, ...], ...]
    logits: Spool
    kl_tokens: int
    loss: Loss
    batch_size: int

    @property
    def first_logprobs(self) -> Tensor:
        """The base's log-probabilities of each answer's first token, (n, vocabulary) float32."""
        rows = [self.logits.get(_KEPT, row)[0] for row in range(len(self.tokens))]
        return torch.stack([row.float().log_softmax(dim=-1) for row in rows])


@dataclass(frozen=True, kw_only=True)
class Beside:
    """A model's figures along a base's answers.

    Attributes:
        divergence: at the first token.
        continuation: over the first `kl_tokens`.
        own_answers: the cross-entropy of the answers, beside the base's.
    """

    divergence: Divergence
    continuation: ContinuationDivergence
    own_answers: LossBeside


def own_answers(
    model: Model,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    kl_tokens: int,
    batch_size: int | None = None,
) -> OwnAnswers:
    """A base's probabilities along its own answers.

    Args:
        prompts, answers: token ids; no answer is empty.
        batch_size: as in `answer_logits`.

    Raises:
        UsageError: as `answer_logits`; or the temporary folder is full.
        VerificationError: the logits are not finite.
    """
    logits = Spool()
    size = answers_at_once(model, prompts, answers) if batch_size is None else batch_size

    def keep(row: int, found: Tensor) -> Tensor:
        logits.keep(_KEPT, row, found[:kl_tokens])
        return token_logprobs(found, answers[row])

    logprobs = answer_logits(model, prompts, answers, keep, batch_size=size, description="the base's answers, read")
    return OwnAnswers(
        tokens=tuple(map(tuple, answers)),
        logits=logits,
        kl_tokens=kl_tokens,
        loss=_loss(model, prompts, answers, logprobs),
        batch_size=size,
    )


def beside(model: Model, prompts: Sequence[Sequence[int]], own: OwnAnswers) -> Beside:
    """A model's divergence from a base along the base's answers, and what these cost it.

    Args:
        prompts: token ids, as the model has them; one for each answer.

    Raises:
        UsageError: other prompts than the base's, or another vocabulary; otherwise as `answer_logits`.
        VerificationError: a value is not finite.
    """
    if len(prompts) != len(own.tokens):
        raise UsageError(f"the base answered {len(own.tokens)} prompts and not {len(prompts)}; give both the same")

    def compare(row: int, found: Tensor) -> tuple[Tensor, bool, Tensor]:
        base = own.logits.get(_KEPT, row)
        # Where the logits are, but for devices without float64.
        base = base.to("cpu" if found.device.type == "mps" else found.device)
        mine = found[: len(base)].to(base.device)
        check_same_shape(base, mine)
        pairs = zip(base.split(_ROWS), mine.split(_ROWS), strict=True)
        apart = torch.cat([kl_divergence(first, second) for first, second in pairs]).cpu()
        return apart, bool(base[0].argmax() == mine[0].argmax()), token_logprobs(found, own.tokens[row])

    rows = answer_logits(
        model, prompts, own.tokens, compare, batch_size=own.batch_size, description="the base's answers, read"
    )
    loss = _loss(model, prompts, own.tokens, [logprobs for _, _, logprobs in rows])
    apart = [each for each, _, _ in rows]
    return Beside(
        divergence=divergence_over(torch.stack([each[0] for each in apart]), [same for _, same, _ in rows]),
        continuation=_over_positions(apart, own.kl_tokens),
        own_answers=LossBeside(loss=loss, base=own.loss),
    )


def _over_positions(apart: Sequence[Tensor], tokens: int) -> ContinuationDivergence:
    """The divergence from that at every position of every answer."""
    per_prompt = torch.stack([each.mean() for each in apart])
    check_finite(per_prompt, "divergence over the base's answer")
    columns = [[each[position] for each in apart if position < len(each)] for position in range(tokens)]
    there = list(takewhile(len, columns))
    return ContinuationDivergence(
        tokens=tokens,
        mean=float(per_prompt.mean()),
        per_position=tuple(float(torch.stack(column).mean()) for column in there),
        counts=tuple(map(len, there)),
        per_prompt=per_prompt,
    )


def _loss(
    model: Model, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], logprobs: Sequence[Tensor]
) -> Loss:
    whole = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    check_logprobs(model, whole, logprobs, VerificationError)
    return loss_of(nats_of(logprobs))
