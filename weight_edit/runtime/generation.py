"""Greedy generation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch, attempt, group_sizes, longest_first, padded, too_long
from weight_edit.runtime.continuous_batching import FirstRead, decode
from weight_edit.runtime.forward import check_lengths
from weight_edit.runtime.forward_pass import suited_threads
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import pass_cost, sequences_at_once, tokens_at_once
from weight_edit.runtime.padding import hides_padding
from weight_edit.runtime.passes import check_tokens
from weight_edit.runtime.prefix import unsuited
from weight_edit.runtime.processes import divided
from weight_edit.runtime.row_cache import UnsuitedError
from weight_edit.runtime.shares import Shares
from weight_edit.utils.progress import bar

T = TypeVar("T")


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: decoded without special tokens and without the end token.
        tokens: what was generated, the end token included, padding not.
        finished: an end token came; False means that the answer was cut at the limit.
        finite: all logits that it was read off are numbers; where they are not, its tokens mean nothing.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool
    finite: bool = True


def generate(
    model: Model,
    sequences: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    batch_size: int | None = None,
    description: str | None = "answers",
) -> list[Generation]:
    """Greedy answers to token sequences, until an end token or `max_new_tokens`.

    The model's own sampling settings and penalties are set aside for the call, so that answers depend on the
    weights alone; its end tokens are kept. Answers leave the batch when they end and others enter
    (`continuous_batching`); where a model's cache does not allow that (`prefix.unsuited`), transformers generates
    batch by batch. Hooks on the model see tokens of several prompts at once, at other columns and in another order than
    the prompts', and a common prefix only once: what they do to a token must follow from that token alone.

    Args:
        batch_size: the prompts at once, at most; None is as many as memory allows and speed gains by.
        description: names the progress bar; None draws none.

    Raises:
        UsageError: max_new_tokens is below 1, a sequence is empty or too long, or memory runs out with one.
    """
    both = _generate(
        model, sequences, _nothing, max_new_tokens=max_new_tokens, batch_size=batch_size, description=description
    )
    return [answer for answer, _ in both]


def generate_and_read(
    model: Model,
    sequences: Sequence[Sequence[int]],
    read: Callable[[Sequence[int], Tensor], Sequence[T]],
    *,
    max_new_tokens: int = 64,
    batch_size: int | None = None,
    description: str | None = "answers",
) -> tuple[list[Generation], list[T]]:
    """The answers of `generate`, and what is read off the logits that each one's first token is taken from.

    So a prompt that is answered is not run once more for what `next_token` of the engine would say of it. Both agree
    to the rounding of the logits, since other sequences share the pass: in float32 the divergence of one from the
    other is below 1e-10 nats, in bfloat16 about 1e-3.

    Args:
        read: is given some prompts' numbers and their logits (prompts, vocabulary) on the model's device, and returns a
            small result for each; once more where memory ran out.
        max_new_tokens, batch_size, description: as in `generate`.

    Raises:
        UsageError: as `generate`.
    """
    both = _generate(
        model, sequences, read, max_new_tokens=max_new_tokens, batch_size=batch_size, description=description
    )
    return [answer for answer, _ in both], [value for _, value in both]


def _generate(
    model: Model,
    sequences: Sequence[Sequence[int]],
    read: Callable[[Sequence[int], Tensor], Sequence[T]],
    *,
    max_new_tokens: int,
    batch_size: int | None,
    description: str | None,
) -> list[tuple[Generation, T]]:
    """Each answer with what is read off its first logits; several processes share the prompts."""
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
    check_lengths(model, [len(sequence) + max_new_tokens for sequence in sequences])
    check_tokens(model, sequences)

    def ask(mine: Sequence[int]) -> list[tuple[Generation, T]]:
        found: dict[int, T] = {}

        def first(rows: Sequence[int], logits: Tensor) -> None:
            found.update(zip(rows, read([mine[row] for row in rows], logits), strict=True))

        said = _here(
            model,
            [sequences[row] for row in mine],
            first,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            description=description,
        )
        return [(answer, found[row]) for row, answer in enumerate(said)]

    return divided([len(sequence) for sequence in sequences], ask, "answers")


def _nothing(rows: Sequence[int], _: Tensor) -> list[None]:
    return [None] * len(rows)


def _here(
    model: Model,
    sequences: Sequence[Sequence[int]],
    first: FirstRead,
    *,
    max_new_tokens: int,
    batch_size: int | None,
    description: str | None,
) -> list[Generation]:
    """The answers that this process generates."""
    ends = end_tokens(model)
    if sequences and unsuited(model) is None:
        with suppress(UnsuitedError):
            return _continuous(
                model,
                sequences,
                ends,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                description=description,
                first=first,
            )
    return by_batch(
        model,
        sequences,
        ends,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        description=description,
        first=first,
    )


def _continuous(
    model: Model,
    sequences: Sequence[Sequence[int]],
    ends: frozenset[int],
    *,
    max_new_tokens: int,
    batch_size: int | None,
    description: str | None,
    first: FirstRead | None,
) -> list[Generation]:
    with bar(description, len(sequences), unit="answers") if description else nullcontext() as drawn:
        found = decode(
            model,
            sequences,
            ends,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            advance=(lambda _: None) if drawn is None else drawn.advance,
            first=first,
        )
    return [_generation(model, answer.tokens, answer.tokens[-1] in ends, answer.finite) for answer in found]


def by_batch(
    model: Model,
    sequences: Sequence[Sequence[int]],
    ends: frozenset[int],
    *,
    max_new_tokens: int,
    batch_size: int | None = None,
    description: str | None = None,
    first: FirstRead | None = None,
) -> list[Generation]:
    """Greedy answers as transformers generates them, each batch until its last answer has ended.

    Prompts of unlike length share a batch where padding costs less than the passes of another batch, as many as an
    answer has tokens; never where padding changes what the model says (`hides_padding`). Of a model on disk several
    batches take turns, so that one reading of the weights gives a token of each.

    Args:
        ends: the tokens that end an answer.
        max_new_tokens, batch_size, description: as in `generate`.
        first: reads each prompt's first logits, once more where memory ran out.

    Raises:
        UsageError: a sequence is empty, the batch size is below 1, or memory runs out with one sequence.
    """
    order = longest_first(sequences, 1 if batch_size is None else batch_size)
    longest = max(map(len, sequences), default=0) + max_new_tokens
    most = sequences_at_once(model, longest, 1) if batch_size is None else batch_size
    most_tokens = tokens_at_once(model)
    alike = not hides_padding(model, sequences)
    found: dict[int, Generation] = {}
    with _greedy(model, ends), bar(description, len(order), "answers") if description else nullcontext() as drawn:
        while order:
            batches: list[Batch] = []
            while order[(rows := sum(len(batch.rows) for batch in batches)) : most] and (not rows or model.offload):
                lengths = [len(sequences[row]) for row in order[rows:most]]
                if alike:
                    lengths = [length for length in lengths if length == lengths[0]]
                count = group_sizes(lengths, most, at_once=most_tokens, pass_cost=max_new_tokens * pass_cost(model))[0]
                batch = padded(sequences, tuple(order[rows : rows + count]), model.pad_id, "left")
                batches.append(batch.to(model.device))
            shares = Shares(drawn, rows)
            with shares.moving(model, model.anatomy.n_layers * max_new_tokens * len(batches)):
                answers = attempt(partial(_answers, model, batches, ends, max_new_tokens=max_new_tokens, first=first))
            if answers is None:
                if rows == 1:
                    raise too_long(len(sequences[order[0]]))
                shares.take_back()
                most = rows // 2
                continue
            found |= dict(zip(order[:rows], answers[0], strict=True))
            order = order[rows:]
            shares.complete()
    return [found[row] for row in range(len(sequences))]


def _answers(
    model: Model, batches: Sequence[Batch], ends: frozenset[int], *, max_new_tokens: int, first: FirstRead | None
) -> list[Generation]:
    """The answers to some batches, one after the other."""

    def step(batch: Batch) -> list[Generation]:
        watch = _Watch(batch.rows, first)
        output = model.model.generate(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList([watch]),
        )
        rows: list[list[int]] = output[:, batch.ids.shape[1] :].tolist()
        return [_read(model, tokens, ends, bad) for tokens, bad in zip(rows, watch.steps(len(rows)), strict=True)]

    steps = [partial(step, batch) for batch in batches]
    with torch.no_grad(), suited_threads(model):
        found = [each() for each in steps] if model.offload is None else model.offload.run(steps)
    return [answer for some in found for answer in some]


def prefix(model: Model, generation: Generation, count: int) -> Generation:
    """The first `count` tokens of an answer, as `generate` with that limit would have given it.

    So one generation gives the answers of all shorter limits.

    Raises:
        UsageError: the count is below 1.
    """
    if count < 1:
        raise UsageError(f"an answer cannot be cut to {count} tokens; it must be at least 1")
    if count >= len(generation.tokens):
        return generation
    return _generation(model, generation.tokens[:count], False, generation.finite)


def end_tokens(model: Model) -> frozenset[int]:
    """The token ids that end an answer, from the generation config and the tokenizer."""
    named = getattr(model.model.generation_config, "eos_token_id", None)
    if named is None:
        named = getattr(model.config, "eos_token_id", None)
    return end_ids(named, model.tokenizer, model.vocabulary)


def end_ids(named: Any, tokenizer: Any, vocabulary: int) -> frozenset[int]:
    """The token ids that end an answer.

    Args:
        named: `eos_token_id` of a config: an id, several, or None.
        vocabulary: the number of logits. What a model cannot say never ends an answer.

    Raises:
        UsageError: `named` is none of these.
    """
    found = set(named) if isinstance(named, (list, tuple)) else {named}
    found.add(tokenizer.eos_token_id)
    try:
        ids = frozenset(int(token) for token in found if token is not None)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"generation_config.json: eos_token_id is {named!r}, not a token id or several") from error
    return frozenset(token for token in ids if 0 <= token < vocabulary)


@contextmanager
def _greedy(model: Model, ends: frozenset[int]) -> Iterator[None]:
    # `generate` fills whatever its caller leaves open from the model's own config (repetition penalties,
    # temperatures with their warnings), so that config is swapped for the length of the call.
    own = model.model.generation_config
    model.model.generation_config = GenerationConfig(
        do_sample=False, num_beams=1, eos_token_id=sorted(ends) or None, pad_token_id=model.pad_id
    )
    try:
        yield
    finally:
        model.model.generation_config = own


class _Watch(LogitsProcessor):
    """A logits processor that lets the first logits be read, notes NaN logits and changes none."""

    def __init__(self, rows: Sequence[int], first: FirstRead | None) -> None:
        self._rows, self._first = rows, first
        self._bad: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._first is not None and not self._bad:
            self._first(self._rows, scores)
        self._bad.append(scores.isnan().any(dim=-1))
        return scores

    def steps(self, rows: int) -> list[list[bool]]:
        """For each row, whether each generated token's logits held NaN."""
        found: list[list[bool]] = torch.stack(self._bad, dim=1).tolist() if self._bad else [[]] * rows
        return found


def _read(model: Model, tokens: list[int], ends: frozenset[int], bad: list[bool]) -> Generation:
    stop = next((index for index, token in enumerate(tokens) if token in ends), None)
    kept = tokens if stop is None else tokens[: stop + 1]
    # What comes behind the end is padding, whose logits nobody reads.
    return _generation(model, kept, stop is not None, not any(bad[: len(kept)]))


def _generation(model: Model, tokens: Sequence[int], finished: bool, finite: bool) -> Generation:
    spoken = list(tokens[:-1] if finished else tokens)
    text = model.tokenizer.decode(spoken, skip_special_tokens=True)
    return Generation(text=text, tokens=tuple(tokens), finished=finished, finite=finite)
