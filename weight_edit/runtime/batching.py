"""Batches of token sequences by length, with padding on either side and explicit positions."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from weight_edit.errors import UsageError
from weight_edit.utils.progress import Bar, bar

T = TypeVar("T")
Side = Literal["left", "right"]

# Sequences share a batch only with others of at least this fraction of its longest, which bounds the padding.
_SHORTEST = 0.75


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Several sequences, padded to one length.

    Attributes:
        ids: token ids, (rows, tokens) int64.
        mask: 1 at real tokens, 0 at padding, same shape.
        position_ids: each real token's index in its own sequence, so that models with absolute positions see
            what they would see without padding; 0 at padding.
        rows: which of the given sequences these are.
        lengths: their numbers of real tokens, (rows,) int64.
        side: where the padding is.
    """

    ids: Tensor
    mask: Tensor
    position_ids: Tensor
    rows: tuple[int, ...]
    lengths: Tensor
    side: Side

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("ids", "mask", "position_ids", "lengths")}
        return replace(self, **tensors)

    def columns(self, positions: Sequence[int]) -> Tensor:
        """The column of each position (-1: last token) in each row, (rows, positions)."""
        offsets = torch.tensor(list(positions), device=self.ids.device)
        ends = self.lengths if self.side == "right" else torch.full_like(self.lengths, self.ids.shape[1])
        return ends[:, None] + offsets[None, :]


def batches(
    sequences: Sequence[Sequence[int]], *, batch_size: int = 32, pad_id: int = 0, side: Side = "left"
) -> Iterator[Batch]:
    """Batches of similar length, longest sequences first.

    Raises:
        UsageError: a sequence is empty, or the batch size is below 1.
    """
    order = longest_first(sequences, batch_size)
    start = 0
    while start < len(order):
        rows = _group(sequences, order, start, batch_size)
        yield padded(sequences, rows, pad_id, side)
        start += len(rows)


def run_batches(
    sequences: Sequence[Sequence[int]],
    step: Callable[[Batch], T],
    *,
    batch_size: int = 32,
    pad_id: int = 0,
    side: Side = "left",
    device: torch.device | str = "cpu",
    description: str | None = None,
    within: Bar | None = None,
    unit: str = "",
    moving: Callable[[Batch, Callable[[float], None]], AbstractContextManager[None]] | None = None,
) -> Iterator[tuple[Batch, T]]:
    """Apply `step` to each batch, halving the batch size whenever memory runs out.

    `step` may be called again for rows whose first try ran out of memory, so its effects belong in what it
    returns, not in what it changes.

    Args:
        description: names the progress bar; None draws none.
        within: a bar of the caller's that counts sequences, instead of one's own.
        unit: what one's own bar counts.
        moving: while its block runs, says what share of a batch is done, as it comes: a batch may take minutes.

    Raises:
        UsageError: as in `batches`, or memory runs out with a single sequence.
    """
    order = longest_first(sequences, batch_size)
    start, size = 0, batch_size
    with bar(description, len(order), unit) if description else nullcontext(within) as drawn:
        while start < len(order):
            rows = _group(sequences, order, start, size)
            batch = padded(sequences, rows, pad_id, side).to(device)
            shares = _Shares(drawn, len(rows))
            with moving(batch, shares.add) if moving is not None and drawn is not None else nullcontext():
                outcome = attempt(partial(step, batch))
            if outcome is None:
                shares.take_back()
                if len(rows) == 1:
                    raise too_long(len(sequences[rows[0]]))
                size = max(1, len(rows) // 2)
                continue
            yield batch, outcome[0]
            start += len(rows)
            shares.complete()


class _Shares:
    """The share of a batch that the progress bar has counted; all of its rows in the end."""

    def __init__(self, drawn: Bar | None, rows: int) -> None:
        self._drawn, self._rows, self._told = drawn, rows, 0.0

    def add(self, share: float) -> None:
        """Advance by a share of the batch, at most to its end."""
        self._tell(min(share * self._rows, self._rows - self._told))

    def complete(self) -> None:
        self._tell(self._rows - self._told)

    def take_back(self) -> None:
        """Take the batch's progress back: memory ran out, and smaller batches repeat it."""
        self._tell(-self._told)

    def _tell(self, rows: float) -> None:
        self._told += rows
        if self._drawn is not None and rows:
            self._drawn.advance(rows)


def attempt(step: Callable[[], T]) -> tuple[T] | None:
    """The result of `step`, in a tuple; None if memory ran out, which is free again on return."""
    try:
        return (step(),)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
    # Outside the handler: while the exception lives, its traceback holds the tensors of the failed pass.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def too_long(tokens: int) -> UsageError:
    """The error for a sequence of so many tokens that memory runs out with it alone."""
    return UsageError(
        f"out of memory with a single sequence of {tokens} tokens; use shorter prompts, "
        "a smaller dtype (bfloat16), device 'auto' to spread the model, or a larger device"
    )


def _out_of_memory(error: RuntimeError) -> bool:
    # CUDA has a class of its own; the CPU and MPS allocators raise RuntimeError with these words.
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "MPS backend out of memory")
    )


def longest_first(sequences: Sequence[Sequence[int]], batch_size: int) -> list[int]:
    """The indices of the sequences, by their lengths.

    Raises:
        UsageError: as `batches`.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size is {batch_size}; it must be at least 1")
    for row, sequence in enumerate(sequences):
        if len(sequence) == 0:
            raise UsageError(f"sequence {row} has no tokens; drop empty prompts first")
    # Longest first: if memory is too small, that shows at once and not after an hour.
    return sorted(range(len(sequences)), key=lambda row: (-len(sequences[row]), row))


def _group(sequences: Sequence[Sequence[int]], order: list[int], start: int, size: int) -> tuple[int, ...]:
    shortest = _SHORTEST * len(sequences[order[start]])
    rows = order[start : start + size]
    return tuple(row for row in rows if len(sequences[row]) >= shortest)


def padded(sequences: Sequence[Sequence[int]], rows: tuple[int, ...], pad_id: int, side: Side) -> Batch:
    """The given rows of the sequences as one batch, padded to the longest."""
    lengths = torch.tensor([len(sequences[row]) for row in rows])
    width = int(lengths.max())
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        length = len(sequences[row])
        real = slice(width - length, width) if side == "left" else slice(0, length)
        ids[index, real] = torch.tensor(list(sequences[row]), dtype=torch.long)
        mask[index, real] = 1
    position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0) * mask
    return Batch(ids=ids, mask=mask, position_ids=position_ids, rows=rows, lengths=lengths, side=side)
