"""Faithfulness: does the edited checkpoint compute what the base computes with the edit hooked in?"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from weight_edit.kl import kl_divergence
from weight_edit.runtime.loading import Model
from weight_edit.threads import one_thread


@dataclass(frozen=True)
class Agreement:
    """How two models' logits agree over all tokens of some prompts.

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


def logits_of(model: Model, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
    """The logits at every token of each sequence, one at a time: float32 on the CPU, (tokens, vocabulary) each."""
    found = []
    with torch.inference_mode(), one_thread() if model.small else nullcontext():
        for sequence in sequences:
            ids = torch.tensor([list(sequence)], device=model.device)
            found.append(model.model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return found


def agreement(wanted: Sequence[Tensor], given: Sequence[Tensor]) -> Agreement:
    """Compare two models' logits, as `logits_of` gives them. Not a number anywhere gives not a number here."""
    largest, total, scale, divergence, equal, tokens, entries = 0.0, 0.0, 0.0, 0.0, 0, 0, 0
    for p, q in zip(wanted, given, strict=True):
        gap = (p.double() - q.double()).abs()
        worst = float(gap.max())
        largest = worst if not worst <= largest else largest
        total += float(gap.sum())
        scale = max(scale, float(p.abs().max()))
        divergence += float(kl_divergence(p, q).sum())
        equal += int((p.argmax(-1) == q.argmax(-1)).sum())
        tokens += len(p)
        entries += p.numel()
    return Agreement(largest, total / entries, scale, divergence / tokens, equal / tokens, tokens)
