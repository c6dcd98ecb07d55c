"""What a model makes of given texts behind prompts: several behind one prompt, which is read once.

Of edits that are tried by the hundred the prompts can be read once for all of them (`read_before`): an edit then acts
on what is said, and on the prompt's last tokens, and not on the rest of what is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch
from weight_edit.runtime.forward import check_lengths
from weight_edit.runtime.forward_pass import forward_backbone, last_logits
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import free_memory
from weight_edit.runtime.passes import run_model
from weight_edit.runtime.prefix import Before, filled, narrowest, new_cache
from weight_edit.runtime.stems import Stems
from weight_edit.runtime.variants import PLAIN, Variant

T = TypeVar("T")

_SHARE = 0.25
"""The part of the free memory that the keys and values of prompts may take."""

_ROWS = 64  # positions in float32 at a time: 64 of a vocabulary of 256k are 67 MB


@dataclass(frozen=True)
class Branch:
    """A continuation of a prompt under a variant.

    Attributes:
        variant, prompt: their numbers among those that were asked for.
        continuation: its number among those of the prompt.
        columns: those of its row of logits that its tokens are predicted by.
    """

    variant: int
    prompt: int
    continuation: int
    columns: slice = field(compare=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadPrompts:
    """Prompts but for their last tokens, as the plain model reads them: passes under any edit go on from there.

    Attributes:
        prompts: their tokens.
        own: the last tokens of each that every pass reads itself, at least one.
        held: keys and values of the rest.
    """

    prompts: tuple[tuple[int, ...], ...]
    own: int
    held: Before

    def stems(self, prompts: Sequence[Sequence[int]], of: Sequence[int]) -> Stems:
        """What sequences that begin with some of these prompts go on from.

        Args:
            of: which of `prompts` each sequence begins with.

        Raises:
            ValueError: a prompt that was not read.
        """
        rows = [self._rows.get(tuple(prompt), -1) for prompt in prompts]
        if -1 in rows:
            raise ValueError(f"prompt {rows.index(-1)} was not read before")
        return Stems(
            tokens=[prompt[: -self.own] for prompt in self.prompts],
            of=[rows[number] for number in of],
            held=self.held,
        )

    @cached_property
    def _rows(self) -> dict[tuple[int, ...], int]:
        return {prompt: row for row, prompt in enumerate(self.prompts)}


def read_before(
    model: Model, prompts: Sequence[Sequence[int]], *, own: int = 1, batch_size: int | None = None
) -> ReadPrompts | None:
    """The prompts as the plain model reads them; None where its cache or memory does not allow it, or it is on disk.

    Args:
        own: the last tokens of each prompt that every pass is to read itself, such as those of the template behind the
            instruction; at least one, and fewer than any prompt has.
        batch_size: as in `run_model`.

    Raises:
        ValueError: `own` is below 1.
        UsageError: as `run_model`.
    """
    if own < 1:
        raise ValueError(f"a pass cannot read the last {own} tokens of a prompt; it needs at least 1")
    known = tuple(dict.fromkeys(tuple(prompt) for prompt in prompts))
    stems = [prompt[:-own] for prompt in known]
    lengths = [len(stem) for stem in stems]
    if model.offload is not None or min(lengths, default=0) < 1 or max(lengths) > narrowest(model):
        return None
    width, free = max(lengths), free_memory(model)

    def step(batch: Batch) -> list[tuple[Tensor, Tensor] | None] | None:
        batch = replace(batch, cache=new_cache(model))
        forward_backbone(model, batch)
        if not filled(batch):
            return None
        return [None if isinstance(each, DummyLayer) else (each.keys, each.values) for each in batch.cache.layers]

    whole: list[tuple[Tensor, Tensor] | None] | None = None
    for batch, found in run_model(model, stems, step, batch_size=batch_size):
        if found is None:
            return None
        if whole is None:
            sizes = [
                sum(each.shape[1] * each.shape[3] * each.element_size() for each in layer or ()) for layer in found
            ]
            if free is not None and sum(sizes) * width * len(known) > _SHARE * free:
                return None
            whole = [layer and tuple(_room(each, len(known), width) for each in layer) for layer in found]  # type: ignore[misc]
        for into, layer in zip(whole, found, strict=True):
            for mine, each in zip(into or (), layer or (), strict=True):
                mine[list(batch.rows), :, width - each.shape[2] :] = each
    assert whole is not None
    layers = [_kept(*both) for both in zip(new_cache(model).layers, whole, strict=True)]
    return ReadPrompts(prompts=known, own=own, held=Before(layers, width, torch.tensor(lengths)))


def _room(like: Tensor, rows: int, width: int) -> Tensor:
    return like.new_zeros(rows, like.shape[1], width, like.shape[3])


def _kept(like: Any, both: tuple[Tensor, Tensor] | None) -> Any:
    """A layer of the kind of `like` that holds keys and values."""
    if both is None:
        return DummyLayer()
    windowed = isinstance(like, DynamicSlidingWindowLayer)
    layer = DynamicSlidingWindowLayer(sliding_window=like.sliding_window) if windowed else DynamicLayer()
    layer.keys, layer.values = both
    return layer


def continuations_under(
    model: Model,
    prompts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    read: Callable[[Sequence[Branch], Tensor], Sequence[T]],
    *,
    variants: Sequence[Variant] = (PLAIN,),
    before: ReadPrompts | None = None,
    batch_size: int | None = None,
    description: str | None = "text probabilities",
) -> list[list[list[T]]]:
    """What `read` makes of the logits that texts behind prompts are predicted by: [variant][prompt][continuation].

    A prompt is read once for all of its continuations under a variant, where the model's cache allows it and that
    pays; the last token of a continuation is not read at all, and what two of them have in front of it only once.

    Args:
        continuations: of each prompt, any number, of at least one token each.
        read: gets some branches and logits (branches, columns, vocabulary) on the model's device in the dtype in which
            it computes; `branch.columns` of its row are the branch's. It returns a result for each branch, and may be
            called again where memory ran out.
        before: the prompts as they were read before, under no edit: an edit acts behind them alone.
        variants, batch_size, description: as in `run_model`.

    Raises:
        UsageError: the two lists differ in length, a prompt or a continuation has no tokens, or a sequence is longer
            than a learned position table; otherwise as `run_model`.
        ValueError: a prompt that was not read before.
    """
    if len(prompts) != len(continuations):
        raise UsageError(f"{len(prompts)} prompts but continuations of {len(continuations)}; each prompt has its own")
    for row, (prompt, texts) in enumerate(zip(prompts, continuations, strict=True)):
        if not prompt or not all(texts):
            raise UsageError(f"prompt {row} or a continuation of it has no tokens; leave it out")
    # What is read of a text is all but its last token, which is the same of some.
    places: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for row, texts in enumerate(continuations):
        for number, text in enumerate(texts):
            places.setdefault((row, tuple(text[:-1])), []).append(number)
    of, numbers = [row for row, _ in places], list(places.values())
    counts = [1 + len(read_of) for _, read_of in places]
    sequences = [[*prompts[row], *read_of] for row, read_of in places]
    check_lengths(model, [len(sequence) for sequence in sequences])
    if before is None:
        stems = Stems(tokens=[prompt[:-1] for prompt in prompts], of=of)
    else:
        stems = before.stems(prompts, of)
    count = len(sequences)

    def step(batch: Batch) -> list[list[T]]:
        rows = [divmod(row, count) for row in batch.rows]
        longest = max(counts[sequence] for _, sequence in rows)
        branches, repeated = [], []
        for index, (variant, sequence) in enumerate(rows):
            # Behind stems that were read before, padding is at the right.
            first = 0 if before is not None else longest - counts[sequence]
            columns = slice(first, first + counts[sequence])
            branches += [Branch(variant, of[sequence], number, columns) for number in numbers[sequence]]
            repeated += [index] * len(numbers[sequence])
        logits = last_logits(model, batch, longest)
        values = iter(read(branches, logits if len(repeated) == len(rows) else logits[repeated]))
        return [[next(values) for _ in numbers[sequence]] for _, sequence in rows]

    passes = run_model(
        model,
        sequences,
        step,
        variants=variants,
        # Of a prompt, one token is read with each continuation, and one with the prompt itself.
        keep=[1 + each for each in counts],
        read=max(counts, default=1),
        stems=stems,
        batch_size=batch_size,
        description=description,
        costs=counts,
    )
    results: list[list[dict[int, T]]] = [[{} for _ in prompts] for _ in variants]
    for batch, found in passes:
        for number, values in zip(batch.rows, found, strict=True):
            variant, sequence = divmod(number, count)
            results[variant][of[sequence]] |= zip(numbers[sequence], values, strict=True)
    return [[[said[number] for number in range(len(said))] for said in rows] for rows in results]


def text_logprobs(logits: Tensor, branches: Sequence[Branch], texts: Sequence[Sequence[int]]) -> Tensor:
    """The log-probability of each text by its own logits, (texts,) float64 on the CPU.

    Args:
        logits, branches: as `continuations_under` gives them.
        texts: the tokens of each branch.
    """
    wanted = torch.zeros(logits.shape[:2], dtype=torch.long)
    real = torch.zeros(logits.shape[:2], dtype=torch.bool)
    for row, (branch, text) in enumerate(zip(branches, texts, strict=True)):
        wanted[row, branch.columns] = torch.tensor(list(text))
        real[row, branch.columns] = True
    flat, ids = logits.flatten(0, 1), wanted.flatten().to(logits.device)
    parts = [
        (some.gather(-1, chosen[:, None])[:, 0] - some.logsumexp(dim=-1)).cpu()
        for some, chosen in (
            (rows.float(), each) for rows, each in zip(flat.split(_ROWS), ids.split(_ROWS), strict=True)
        )
    ]
    every = torch.cat(parts).double().reshape(real.shape)
    return every.masked_fill(~real, 0.0).sum(dim=1)
