"""Forward passes without unused work: the backbone alone, or a few positions' logits."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch, Side, attempt, batches, longest_first, run_batches, too_long
from weight_edit.runtime.hooks import PASS
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import free_memory, sequences_at_once
from weight_edit.utils.progress import Bar, bar, is_quiet
from weight_edit.utils.threads import one_thread

T = TypeVar("T")


def forward_backbone(model: Model, batch: Batch) -> None:
    """Run the model without its unembedding, for the effect of the attached hooks.

    Args:
        batch: on the model's device.
    """
    backbone = model.model.base_model
    with torch.no_grad():
        backbone(**_inputs(backbone, batch))


def next_token_logprobs(
    model: Model,
    sequences: Sequence[Sequence[int]],
    *,
    batch_size: int | None = None,
    description: str | None = "next-token probabilities",
    within: Bar | None = None,
) -> Tensor:
    """Log-probabilities of the token after each sequence: (n, vocabulary) float32 on the CPU.

    Args:
        batch_size: sequences at once, at most; None is as many as memory allows.
        description, within: as in `run_batches`.

    Raises:
        UsageError: a sequence is empty or longer than a learned position table, or memory runs out with one.
    """
    check_lengths(model, [len(sequence) for sequence in sequences])

    def step(batch: Batch) -> Tensor:
        with torch.no_grad():
            return last_logits(model, batch, 1)[:, -1].float().log_softmax(dim=-1).cpu()

    if batch_size is None:
        batch_size = sequences_at_once(model, max(map(len, sequences), default=1), 1)
    rows: list[Tensor | None] = [None] * len(sequences)
    passes = run_model(model, sequences, step, batch_size=batch_size, description=description, within=within)
    for batch, logprobs in passes:
        for row, values in zip(batch.rows, logprobs, strict=True):
            rows[row] = values
    filled = [values for values in rows if values is not None]
    return torch.stack(filled) if filled else torch.empty(0, model.vocabulary)


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

    Logits exist only for the last positions of each batch, as many as its longest answer needs.

    Args:
        read: gets the prompt's number and its answer's logits, (tokens of the answer, vocabulary) on the model's device
            in the dtype in which it computes; it may be called again where memory ran out.
        batch_size: sequences at once, at most; None is as many as memory allows.

    Raises:
        UsageError: the two lists differ in length; otherwise as `next_token_logprobs`.
    """
    if len(prompts) != len(answers):
        raise UsageError(f"{len(prompts)} prompts but {len(answers)} answers; each prompt needs one answer")
    for row, prompt in enumerate(prompts):
        if len(prompt) == 0:
            raise UsageError(f"prompt {row} has no tokens, so nothing predicts its answer's first token")
    sequences = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    check_lengths(model, [len(sequence) for sequence in sequences])

    def step(batch: Batch) -> list[T]:
        longest = max(len(answers[row]) for row in batch.rows)
        with torch.no_grad():
            logits = last_logits(model, batch, longest + 1)
            # The logits at a position predict the next token, hence one to the left of the answer.
            return [
                read(row, logits[index, longest - len(answers[row]) : longest]) for index, row in enumerate(batch.rows)
            ]

    if batch_size is None:
        batch_size = answers_at_once(model, prompts, answers)
    results: dict[int, T] = {}
    for batch, values in run_model(model, sequences, step, batch_size=batch_size, description=description):
        results |= dict(zip(batch.rows, values, strict=True))
    return [results[row] for row in range(len(sequences))]


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


def check_tokens(model: Model, sequences: Sequence[Sequence[int]]) -> None:
    """Refuse token ids outside of the embedding.

    They would fail deep inside the model, or end the process on a GPU.

    Raises:
        UsageError: names the id and the number of embeddings.
    """
    count = model.embeddings
    for row, sequence in enumerate(sequences):
        wrong = next((token for token in sequence if not 0 <= token < count), None)
        if wrong is not None:
            raise UsageError(
                f"text {row + 1} has the token {str(wrong)[:40]}, but the model has embeddings for 0 to {count - 1}; "
                "its tokenizer is another model's, or the text has a token that this model does not know"
            )


def run_model(
    model: Model,
    sequences: Sequence[Sequence[int]],
    step: Callable[[Batch], T],
    *,
    batch_size: int,
    description: str | None,
    side: Side = "left",
    within: Bar | None = None,
    blocks: int | None = None,
    unit: str = "",
) -> Iterator[tuple[Batch, T]]:
    """`run_batches` on the model's device, with its padding and a suitable number of threads.

    Args:
        blocks: how many calls of blocks a batch takes, for the bar to move with each; all of the model's when None.
        unit: what the bar counts.

    Raises:
        UsageError: as `run_batches`, or a token that the model has no embedding for.
    """
    check_tokens(model, sequences)
    if model.offload is not None:
        return _in_turns(
            model,
            sequences,
            step,
            batch_size=batch_size,
            side=side,
            description=description,
            within=within,
            unit=unit,
        )
    calls = model.anatomy.n_layers if blocks is None else blocks

    @contextmanager
    def moving(batch: Batch, advance: Callable[[float], None]) -> Iterator[None]:
        with each_block(model, lambda: advance(1 / max(1, calls))):
            yield

    def suited(batch: Batch) -> T:
        with one_thread() if model.small else nullcontext():
            return step(batch)

    return run_batches(
        sequences,
        suited,
        batch_size=batch_size,
        pad_id=model.pad_id,
        side=side,
        device=model.device,
        description=description,
        within=within,
        unit=unit,
        moving=None if is_quiet() else moving,
    )


def _in_turns(
    model: Model,
    sequences: Sequence[Sequence[int]],
    step: Callable[[Batch], T],
    *,
    batch_size: int,
    side: Side,
    description: str | None,
    within: Bar | None,
    unit: str,
) -> Iterator[tuple[Batch, T]]:
    """`run_model` of a model on disk: as many batches as memory holds go through each block together."""
    assert model.offload is not None
    size, done = batch_size, 0
    order = longest_first(sequences, batch_size)
    with bar(description, len(order), unit) if description else nullcontext(within) as drawn:
        while done < len(order):
            left = [sequences[row] for row in order[done:]]
            wave = [
                replace(batch, rows=tuple(order[done + row] for row in batch.rows))
                for batch in _wave(model, batches(left, batch_size=size, pad_id=model.pad_id, side=side))
            ]
            rows = sum(len(batch.rows) for batch in wave)

            def advance(share: float, rows: int = rows) -> None:
                if drawn is not None:
                    drawn.advance(share * rows)

            steps = [partial(_own_pass, step, batch) for batch in wave]
            with one_thread() if model.small else nullcontext():
                outcome = attempt(partial(model.offload.run, steps, advance))
            if outcome is None:
                if size == 1:
                    raise too_long(len(left[0]))
                size = max(1, size // 2)
                continue
            yield from zip(wave, outcome[0], strict=True)
            done += rows


def _own_pass(step: Callable[[Batch], T], batch: Batch) -> T:
    PASS.set(object())
    return step(batch)


def _wave(model: Model, found: Iterable[Batch]) -> Iterator[Batch]:
    """The first batches, with their passes' memory between blocks in an eighth of what is free; at least one."""
    free, held = free_memory(model), 0
    for batch in found:
        tokens = batch.ids.numel()
        held += tokens * model.anatomy.d_model * model.dtype.itemsize * 8 + len(batch.rows) * model.vocabulary * 8
        if free is not None and held > free / 8 and held:
            return
        yield batch.to(model.device)


@contextmanager
def each_block(model: Model, passed: Callable[[], None]) -> Iterator[None]:
    """Within the context, `passed` is called whenever a block of the model begins."""
    places = [model.model.get_submodule(block.module) for block in model.anatomy.blocks]
    handles = [place.register_forward_pre_hook(lambda *_: passed()) for place in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def last_logits(model: Model, batch: Batch, count: int) -> Tensor:
    """The logits of the last `count` columns of a left-padded batch: (rows, count, vocabulary).

    Gradients flow where the caller has them enabled.
    """
    inputs = _inputs(model.model, batch)
    if "logits_to_keep" in inspect.signature(model.model.forward).parameters:
        inputs["logits_to_keep"] = count
    logits: Tensor = model.model(**inputs).logits
    return logits[:, -count:]


def _inputs(module: nn.Module, batch: Batch) -> dict[str, Any]:
    """The arguments of `module.forward`; positions and cache only if the family takes them."""
    taken = inspect.signature(module.forward).parameters
    optional = {"position_ids": batch.position_ids, "use_cache": False}
    return {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        **{name: value for name, value in optional.items() if name in taken},
    }
