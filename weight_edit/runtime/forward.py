"""What is asked of a model's predictions: the next token's distribution, or that of each token of an answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import sequences_at_once
from weight_edit.runtime.passes import last_logits, run_model
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, Variant
from weight_edit.utils.progress import Bar

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """A prompt under a variant.

    Attributes:
        variant, prompt: their numbers among those that were asked for.
    """

    variant: int
    prompt: int


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
    """What `read` makes of the logits behind each sequence, for each variant: [variant][sequence].

    Args:
        read: gets some rows and their logits, (rows, vocabulary) on the model's device in the dtype in which it
            computes, and returns a result for each; it may be called again where memory ran out.
        variants, trunk, batch_size, description, within: as in `run_model`.

    Raises:
        UsageError: a sequence is longer than a learned position table; otherwise as `run_model`.
    """
    check_lengths(model, [len(sequence) for sequence in sequences])
    count = len(sequences)

    def step(batch: Batch) -> Sequence[T]:
        rows = [Row(*divmod(row, count)) for row in batch.rows]
        return read(rows, last_logits(model, batch, 1)[:, -1])

    passes = run_model(
        model,
        sequences,
        step,
        variants=variants,
        keep=[1] * count,
        read=1,
        trunk=trunk,
        batch_size=batch_size,
        description=description,
        within=within,
    )
    found: dict[int, T] = {}
    for batch, values in passes:
        found |= dict(zip(batch.rows, values, strict=True))
    return [[found[variant * count + row] for row in range(count)] for variant in range(len(variants))]


def next_token_logprobs(
    model: Model,
    sequences: Sequence[Sequence[int]],
    *,
    batch_size: int | None = None,
    description: str | None = "next-token probabilities",
    within: Bar | None = None,
) -> Tensor:
    """Log-probabilities of the token after each sequence: (n, vocabulary) float32 on the CPU.

    Raises:
        UsageError: as `next_token`.
    """
    (rows,) = next_token(
        model,
        sequences,
        lambda _, logits: list(logits.float().log_softmax(dim=-1).cpu()),
        batch_size=batch_size,
        description=description,
        within=within,
    )
    return torch.stack(rows) if rows else torch.empty(0, model.vocabulary)


def answer_logprobs(
    model: Model,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    *,
    batch_size: int | None = None,
    description: str | None = "answer probabilities",
) -> list[Tensor]:
    """Log-probability of each token of each answer, given its prompt and the tokens before.

    Returns:
        One float32 tensor (tokens of the answer,) on the CPU per prompt.

    Raises:
        UsageError: as `answer_logits`.
    """
    return answer_logits(
        model,
        prompts,
        answers,
        lambda row, logits: token_logprobs(logits, answers[row]),
        batch_size=batch_size,
        description=description,
    )


def answer_logits(
    model: Model,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    read: Callable[[int, Tensor], T],
    *,
    batch_size: int | None = None,
    description: str | None = "answer probabilities",
) -> list[T]:
    """What `read(row, logits)` makes of the logits that each answer's tokens are predicted by.

    Args:
        read: as in `answers_under`, with the prompt's number.

    Raises:
        UsageError: as `answers_under`.
    """
    (found,) = answers_under(
        model,
        prompts,
        answers,
        lambda row, logits: read(row.prompt, logits),
        batch_size=batch_size,
        description=description,
    )
    return found


def answers_under(
    model: Model,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    read: Callable[[Row, Tensor], T],
    *,
    variants: Sequence[Variant] = (PLAIN,),
    batch_size: int | None = None,
    description: str | None = "answer probabilities",
) -> list[list[T]]:
    """What `read` makes of the logits that each answer's tokens are predicted by, under each variant.

    Logits exist only for the last positions of each batch, as many as its longest answer needs.

    Args:
        read: gets a row and its answer's logits, (tokens of the answer, vocabulary) on the model's device in the dtype
            in which it computes; it may be called again where memory ran out.
        variants, batch_size, description: as in `run_model`.

    Raises:
        UsageError: the two lists differ in length; otherwise as `next_token`.
    """
    if len(prompts) != len(answers):
        raise UsageError(f"{len(prompts)} prompts but {len(answers)} answers; each prompt needs one answer")
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise UsageError(f"prompt {row} has no tokens, so nothing predicts its answer's first token")
    sequences = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    check_lengths(model, [len(sequence) for sequence in sequences])
    count = len(sequences)

    def step(batch: Batch) -> list[T]:
        rows = [Row(*divmod(row, count)) for row in batch.rows]
        longest = max(len(answers[row.prompt]) for row in rows)
        logits = last_logits(model, batch, longest + 1)
        # The logits at a position predict the next token, hence one to the left of the answer.
        return [
            read(row, logits[index, longest - len(answers[row.prompt]) : longest]) for index, row in enumerate(rows)
        ]

    passes = run_model(
        model,
        sequences,
        step,
        variants=variants,
        keep=[1 + len(answer) for answer in answers],
        read=1 + max(map(len, answers), default=0),
        batch_size=batch_size,
        description=description,
        # By the answers alone: who reads a base's answers reads them again in the model that is compared with it, and
        # what was kept of them in between is that process's own.
        costs=[len(answer) for answer in answers],
    )
    results: dict[int, T] = {}
    for batch, values in passes:
        results |= dict(zip(batch.rows, values, strict=True))
    return [[results[variant * count + row] for row in range(count)] for variant in range(len(variants))]


def answers_at_once(model: Model, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> int:
    """The answers that `answer_logits` reads at once where the caller sets no limit."""
    whole = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    return sequences_at_once(model, max(whole, default=1), 1 + max(map(len, answers), default=0))


def token_logprobs(logits: Tensor, tokens: Sequence[int]) -> Tensor:
    """The log-probability of each token by its own logits, (tokens,) float32 on the CPU.

    Args:
        logits: (tokens, vocabulary).
    """
    wanted = torch.tensor(list(tokens), dtype=torch.long, device=logits.device)
    parts = [
        (some.gather(-1, chosen[:, None]).squeeze(-1) - some.logsumexp(dim=-1)).cpu()
        # In float32 at a time: 64 of a vocabulary of 256k are 67 MB.
        for some, chosen in ((rows.float(), ids) for rows, ids in zip(logits.split(64), wanted.split(64), strict=True))
    ]
    return torch.cat(parts) if parts else torch.empty(0)


def most_positions(model: Model) -> int | None:
    """The longest sequence that a learned position table allows; None where there is none."""
    tables = [model.model.get_parameter(each.weight) for each in model.anatomy.embeddings if each.role == "position"]
    return min((len(table) for table in tables), default=None)


def check_lengths(model: Model, lengths: Sequence[int]) -> None:
    """Refuse sequences longer than a learned position table.

    They would fail deep inside the model.

    Raises:
        UsageError: names both lengths.
    """
    for writer in model.anatomy.embeddings:
        if writer.role == "position":
            limit = model.model.get_parameter(writer.weight).shape[0]
            if max(lengths, default=0) > limit:
                raise UsageError(
                    f"a sequence of {max(lengths)} tokens exceeds the {limit} positions of {writer.weight}; "
                    "use shorter prompts or fewer new tokens"
                )
