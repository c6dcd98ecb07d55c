"""A stand-in for the questions under variants, one variant after another; goes when the engine has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from weight_edit.runtime.batching import Batch
from weight_edit.runtime.forward import check_lengths, last_logits, run_model
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import sequences_at_once
from weight_edit.utils.progress import Bar

T = TypeVar("T")


@dataclass(frozen=True)
class Variant:
    """An edit under which prompts are run."""

    hooks: tuple[Hook, ...] = ()


PLAIN = Variant()


@dataclass(frozen=True)
class Row:
    """A row of a batch: which variant and which prompt it is."""

    variant: int
    prompt: int


class Trunk:
    """The plain model's stream for a list of prompts; here it holds nothing."""

    def __init__(self, model: Model, sequences: Sequence[Sequence[int]]) -> None:
        self.model, self.sequences = model, sequences


def next_token(
    model: Model,
    sequences: Sequence[Sequence[int]],
    read: Callable[[Sequence[Row], Tensor], Sequence[T]],
    *,
    variants: Sequence[Variant] = (PLAIN,),
    trunk: Trunk | None = None,
    batch_size: int | None = None,
    description: str | None = "next-token probabilities",
    within: Bar | None = None,
) -> list[list[T]]:
    """What `read` makes of the logits that predict the token after each prompt: [variant][prompt]."""
    check_lengths(model, [len(sequence) for sequence in sequences])
    if batch_size is None:
        batch_size = sequences_at_once(model, max(map(len, sequences), default=1), 1)
    result = []
    for number, variant in enumerate(variants):

        def step(batch: Batch, number: int = number) -> Sequence[T]:
            with torch.no_grad():
                return read([Row(number, row) for row in batch.rows], last_logits(model, batch, 1)[:, -1])

        found: dict[int, T] = {}
        with hooked(model.model, variant.hooks):
            passes = run_model(model, sequences, step, batch_size=batch_size, description=description, within=within)
            for batch, values in passes:
                found |= dict(zip(batch.rows, values, strict=True))
        result.append([found[row] for row in range(len(sequences))])
    return result
