"""The model's own outputs as training texts for directions: no texts are bundled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.runtime.batching import Batch, batches
from weight_edit.runtime.forward_pass import last_logits
from weight_edit.runtime.generation import generate
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import check_generations
from weight_edit.runtime.passes import check_tokens


@dataclass(frozen=True)
class Said:
    """A prompt and a text that follows it, as token ids; at least one of each."""

    prompt: tuple[int, ...]
    text: tuple[int, ...]


def said(
    model: Model,
    prompts: Sequence[Sequence[int]],
    tokens: int,
    hooks: Sequence[Hook],
    what: str,
    batch_size: int | None,
) -> list[Said]:
    """The model's greedy continuations of prompts under hooks, at most `tokens` long.

    Args:
        what: names the progress bar.

    Raises:
        UsageError: a prompt is empty or too long, memory runs out with a single one, or the logits are no numbers.
    """
    with hooked(model.model, hooks):
        texts = generate(model, prompts, max_new_tokens=tokens, batch_size=batch_size, description=what)
        check_generations(model, prompts, texts)
    return [Said(tuple(prompt), text.tokens) for prompt, text in zip(prompts, texts, strict=True)]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Next-token logits at every token of some texts, from one forward pass.

    Attributes:
        logits: (tokens, vocabulary) float32, text by text.
        wanted: the tokens themselves, (tokens,) int64.
    """

    logits: Tensor
    wanted: Tensor


def padded(model: Model, texts: Sequence[Said]) -> Iterator[Batch]:
    """Padded batches of prompts with their texts; `rows` of a batch indexes the texts."""
    sequences = [[*text.prompt, *text.text] for text in texts]
    check_tokens(model, sequences)
    for batch in batches(sequences, batch_size=max(1, len(texts)), pad_id=model.pad_id):
        yield batch.to(model.device)


def predictions(model: Model, batch: Batch, texts: Sequence[Said]) -> Predictions:
    """The predictions for one batch of `padded`, differentiable where gradients are enabled."""
    counts = [len(texts[row].text) for row in batch.rows]
    longest = max(counts)
    logits = last_logits(model, batch, longest + 1)
    # The logits at a position predict the next token, hence one to the left of the text.
    chosen = [logits[index, longest - count : longest] for index, count in enumerate(counts)]
    wanted = [batch.ids[index, batch.ids.shape[1] - count :] for index, count in enumerate(counts)]
    return Predictions(torch.cat(chosen).float(), torch.cat(wanted).to(logits.device))
