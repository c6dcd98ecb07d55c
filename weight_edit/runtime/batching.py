"""Batches of token sequences by length, with padding on either side and explicit positions."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from weight_edit.errors import OutOfMemoryError, UsageError
from weight_edit.utils.progress import bar

if TYPE_CHECKING:
    from weight_edit.runtime.variants import Variant

T = TypeVar("T")
Side = Literal["left", "right"]

PASS_COST = 40
"""The tokens whose reading costs a processor about what a pass costs however few it reads: what one less is worth."""

_LARGEST = 512
"""Sequences of a group: what one pass less would save is little beside so many."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Several sequences, padded to one length.

    Attributes:
        ids: token ids, (rows, tokens) int64; of sequences whose beginning is in `cache`, only what comes after it.
        mask: 1 at real tokens, 0 at padding, the same shape, with the columns of the cache before.
        position_ids: each real token's index in its own sequence, so that models with absolute positions see
            what they would see without padding; 0 at padding.
        rows: which of the given sequences these are.
        lengths: their numbers of real tokens, (rows,) int64.
        side: where the padding is.
        under: the edit that each row is run under; empty where there is none.
        cache: keys and values of what comes before, as the model takes them.
    """

    ids: Tensor
    mask: Tensor
    position_ids: Tensor
    rows: tuple[int, ...]
    lengths: Tensor
    side: Side
    under: "tuple[Variant, ...]" = ()
    cache: Any = None

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with its tensors on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("ids", "mask", "position_ids", "lengths")}
        return replace(self, **tensors)

    def columns(self, positions: Sequence[int]) -> Tensor:
        """The column of each position (-1: last token) in each row, (rows, positions)."""
        offsets = torch.tensor(list(positions), device=self.ids.device)
        ends = self.lengths if self.side == "right" else torch.full_like(self.lengths, self.ids.shape[1])
        return ends[:, None] + offsets[None, :]

    @property
    def runs(self) -> "list[tuple[Variant, int]]":
        """The edits of successive rows, each with the number of its rows."""
        return [(variant, len(list(rows))) for variant, rows in groupby(self.under)]


def batches(
    sequences: Sequence[Sequence[int]], *, batch_size: int = 32, pad_id: int = 0, side: Side = "left"
) -> Iterator[Batch]:
    """Batches of similar length, longest sequences first.

    Raises:
        UsageError: a sequence is empty, or the batch size is below 1.
    """
    for rows in grouped(sequences, batch_size):
        yield padded(sequences, rows, pad_id, side)


def grouped(
    sequences: Sequence[Sequence[int]],
    most: int,
    *,
    known: int = 0,
    unpadded: bool = False,
    pass_cost: int = PASS_COST,
) -> list[tuple[int, ...]]:
    """The indices of sequences that make a batch, for each batch, so that all of them together cost least.

    Args:
        most: rows of a batch.
        known: tokens at the beginning of each sequence that are not read.
        unpadded: only sequences of one length share a batch.
        pass_cost: see `group_sizes`.

    Raises:
        UsageError: as `batches`.
    """
    order = longest_first(sequences, most)
    found = []
    alike = [list(some) for _, some in groupby(order, lambda row: len(sequences[row]))] if unpadded else [order]
    for rows in alike:
        start = 0
        for size in group_sizes([len(sequences[row]) - known for row in rows], most, pass_cost=pass_cost):
            found.append(tuple(rows[start : start + size]))
            start += size
    return found


def group_sizes(
    unread: Sequence[int], most: int, *, at_once: int | None = None, pass_cost: int = PASS_COST
) -> list[int]:
    """The sizes of successive groups of some sequences, so that all passes together cost least.

    A group costs `pass_cost` tokens, and as many for each of its rows as its longest has.

    Args:
        unread: the tokens that are read of each, the longest first.
        most: sequences of a group.
        at_once: tokens of a group, if it is more than one sequence; None for no limit.
    """
    costs = [0] * (len(unread) + 1)
    sizes = [0] * len(unread)
    for start in reversed(range(len(unread))):
        limit = min(len(unread) - start, most, _LARGEST, most if at_once is None else at_once // unread[start])
        cost = {size: pass_cost + size * unread[start] + costs[start + size] for size in range(1, max(1, limit) + 1)}
        sizes[start] = min(cost, key=lambda size: (cost[size], -size))
        costs[start] = cost[sizes[start]]
    found, start = [], 0
    while start < len(unread):
        found.append(sizes[start])
        start += sizes[start]
    return found


def run_batches(
    sequences: Sequence[Sequence[int]],
    step: Callable[[Batch], T],
    *,
    batch_size: int = 32,
    pad_id: int = 0,
    side: Side = "left",
    device: torch.device | str = "cpu",
    description: str | None = None,
) -> Iterator[tuple[Batch, T]]:
    """Apply `step` to each batch, in halves where memory runs out: for models other than those that are edited.

    Args:
        description: names the progress bar; None draws none.

    Raises:
        UsageError: as in `batches`, or memory runs out with a single sequence.
    """
    waiting, most = deque(grouped(sequences, batch_size)), batch_size
    with bar(description, len(sequences)) if description else nullcontext() as drawn:
        while waiting:
            rows = waiting.popleft()
            if len(rows) > most:
                waiting.extendleft((rows[most:], rows[:most]))
                continue
            batch = padded(sequences, rows, pad_id, side).to(device)
            outcome = attempt(partial(step, batch))
            if outcome is None:
                if len(rows) == 1:
                    raise too_long(len(sequences[rows[0]]))
                most = len(rows) // 2
                waiting.appendleft(rows)
                continue
            yield batch, outcome[0]
            if drawn is not None:
                drawn.advance(len(rows))


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


def too_long(tokens: int) -> OutOfMemoryError:
    """The error for a sequence of so many tokens that memory runs out with it alone."""
    return OutOfMemoryError(
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
