"""Greedy decoding in a batch that answers leave when they end, and that others enter.

The prompts' common prefix, mostly a template's, is read once. The other prompts enter in groups of similar length, the
longest first. An answer that has ended is fed padding until enough have, since leaving copies the cache of the others.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice, takewhile

import torch

from weight_edit.runtime.batching import attempt, group_sizes, longest_first, too_long
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import free_memory
from weight_edit.runtime.passes import each_block
from weight_edit.runtime.prefix import LEAST
from weight_edit.runtime.row_cache import RowCache
from weight_edit.utils.progress import is_quiet
from weight_edit.utils.threads import one_thread

MOST_ROWS = 128
"""Rows at once where the caller sets no limit: more make a pass through a model's blocks no cheaper for each."""

_SHARE_OF_MEMORY = 0.5
"""The part of the free memory that the cache of all rows may take, while it is copied too."""

_GROUP = 4096
"""The tokens that a group reads at once, if it is more than one prompt."""


@dataclass(kw_only=True)
class Decoded:
    """An answer's tokens.

    Attributes:
        row: which prompt's it is.
        tokens: with the end token, if one came.
        finite: no logits that a token was read off held NaN.
        ended: nothing is added any more.
    """

    row: int
    tokens: list[int] = field(default_factory=list)
    finite: bool = True
    ended: bool = False


def decode(
    model: Model,
    sequences: Sequence[Sequence[int]],
    ends: frozenset[int],
    *,
    max_new_tokens: int,
    batch_size: int | None,
    advance: Callable[[float], None],
) -> list[Decoded]:
    """The greedy answer to each token sequence.

    Args:
        ends: the tokens that end an answer.
        batch_size: the rows at once, at most; None is what memory allows, up to `MOST_ROWS`.
        advance: is told how many answers more are done, in parts of answers; less than 0 where memory ran out.

    Raises:
        UsageError: a sequence is empty, the batch size is below 1, or memory runs out with one sequence.
        UnsuitedError: the model keeps its cache in a form from which rows cannot be taken.
    """
    order = longest_first(sequences, 1 if batch_size is None else batch_size)
    most = min(MOST_ROWS if batch_size is None else batch_size, len(sequences))
    running = _Running(
        model=model,
        sequences=sequences,
        ends=ends,
        max_new_tokens=max_new_tokens,
        most=most,
        advance=advance,
        waiting=deque(order),
    )
    seen = nullcontext() if is_quiet() else each_block(model, running.passed)
    with torch.inference_mode(), seen, one_thread() if model.small else nullcontext():
        while running.left:
            if attempt(running.step) is None:
                running.retreat()
    return [running.answers[row] for row in range(len(sequences))]


def first_group(unread: Sequence[int]) -> int:
    """How many of some prompts to read in the first pass, see `group_sizes`; at least one prompt."""
    return group_sizes(unread, len(unread), at_once=_GROUP)[0]


@dataclass(kw_only=True)
class _Running:
    """The state of a batch.

    Attributes:
        most: rows at once.
        waiting: the prompts that have not entered yet.
        answers: of all prompts that have entered.
        rows: the answers in the batch, those among them that ended too.
        cache: theirs; None where no row is in it.
        prefix: of all sequences; None where it does not pay.
        idle: row-steps that were spent on answers that had ended.
        measured: `most` is what memory allows.
    """

    model: Model
    sequences: Sequence[Sequence[int]]
    ends: frozenset[int]
    max_new_tokens: int
    most: int
    advance: Callable[[float], None]
    waiting: deque[int]
    answers: dict[int, Decoded] = field(default_factory=dict)
    rows: list[Decoded] = field(default_factory=list)
    cache: RowCache | None = None
    prefix: RowCache | None = None
    idle: int = 0
    measured: bool = False
    _expected: float = 0.0
    _told: float = 0.0

    @property
    def left(self) -> bool:
        return bool(self.waiting) or not all(row.ended for row in self.rows)

    def step(self) -> None:
        """Give each row a token, or let prompts enter and give each of those its first."""
        running = [row for row in self.rows if not row.ended]
        if not running or 4 * self.idle >= len(self.rows):
            self._renew(running)
            return
        assert self.cache is not None
        tokens = [[self.model.pad_id if row.ended else row.tokens[-1]] for row in self.rows]
        self._add(self.cache, self.rows, tokens)
        self.idle += sum(row.ended for row in self.rows)

    def passed(self) -> None:
        """Tell the progress of a pass that is under way: a block of it begins."""
        share = min(self._expected / self.model.anatomy.n_layers, self._expected - self._told)
        self._told += share
        self.advance(share)

    def retreat(self) -> None:
        """Let all prompts in the batch wait again, half as many at once: memory ran out.

        Raises:
            UsageError: it was one prompt.
        """
        out = [row for row in self.rows if not row.ended]
        if len(out) <= 1:
            raise too_long(len(self.sequences[out[0].row if out else self.waiting[0]]))
        self.advance(-self._told - sum(len(row.tokens) for row in out) / self.max_new_tokens)
        for row in out:
            del self.answers[row.row]
        self.waiting = deque(sorted([*self.waiting, *(row.row for row in out)], key=self._longest_first))
        self.rows, self.cache, self.idle, self._told = [], None, 0, 0.0
        self.most = len(out) // 2

    def _longest_first(self, row: int) -> tuple[int, int]:
        return -len(self.sequences[row]), row

    def _renew(self, running: list[Decoded]) -> None:
        """Let answers leave that have ended, and as many prompts enter as there is room for."""
        parts: list[tuple[RowCache, list[int]]] = []
        if self.cache is not None and running:
            parts.append((self.cache, [index for index, row in enumerate(self.rows) if not row.ended]))
        self.rows, self.cache, self.idle = running, None, 0
        if not self.measured:
            self._read_prefix()
        while self.waiting and len(self.rows) < self.most:
            group = self._group()
            self.rows = [*self.rows, *group]
            cache = self._enter(group)
            parts.append((cache, [index for index, row in enumerate(group) if not row.ended]))
            self.rows = [row for row in self.rows if not row.ended]
            self._measure(cache)
        parts = [part for part in parts if part[1]]
        self.cache = RowCache.joined(parts) if parts else None

    def _group(self) -> list[Decoded]:
        """The prompts that enter next: of similar length, and few enough."""
        known = self.prefix.width if self.prefix else 0
        room = self.most - len(self.rows)
        unread = [len(self.sequences[row]) - known for row in islice(self.waiting, room)]
        group = [Decoded(row=self.waiting.popleft()) for _ in range(first_group(unread))]
        self.answers |= {row.row: row for row in group}
        return group

    def _enter(self, group: list[Decoded]) -> RowCache:
        """The cache of new prompts, each of which gets its first token."""
        prompts = [self.sequences[row.row] for row in group]
        lengths = [len(prompt) for prompt in prompts]
        if self.prefix is None:
            columns, cache = max(lengths), RowCache.empty(self.model, len(group))
        else:
            columns = max(lengths) - self.prefix.width
            cache = self.prefix.shared(lengths, columns)
        self._add(cache, group, [prompt[-columns:] for prompt in prompts])
        return cache

    def _add(self, cache: RowCache, rows: list[Decoded], tokens: Sequence[Sequence[int]]) -> None:
        """Read tokens of each row, and add the likeliest next one to its answer."""
        self._expected = sum(not row.ended for row in rows) / self.max_new_tokens
        values, likeliest = cache.forward(self.model, tokens).max(dim=-1)
        moved = -self._told
        for index, (token, bad) in enumerate(zip(*torch.stack([likeliest, values.isnan()]).tolist(), strict=True)):
            row = rows[index]
            if row.ended:
                continue
            row.tokens.append(token)
            row.finite &= not bad
            row.ended = token in self.ends or len(row.tokens) == self.max_new_tokens
            moved += 1 / self.max_new_tokens
            if row.ended:
                moved += 1 - len(row.tokens) / self.max_new_tokens
                # Whatever is read of it from here on counts from 0, within the positions that the model has.
                cache.clear(index)
        self._expected = self._told = 0.0
        self.advance(moved)

    def _read_prefix(self) -> None:
        cache = RowCache.empty(self.model, 1)
        columns = zip(*self.sequences, strict=False)
        common = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
        # Each prompt has a token left to be read; and what a window has forgotten, no shorter prompt can take from it.
        tokens = min(len(common), min(map(len, self.sequences)) - 1, cache.narrowest or len(common))
        if tokens >= LEAST and len(self.sequences) >= 4:
            cache.forward(self.model, [common[:tokens]])
            self.prefix = cache
            self._measure(cache)

    def _measure(self, cache: RowCache) -> None:
        """Once, lower the number of rows to what memory allows, and share the prompts out evenly."""
        if self.measured:
            return
        self.measured = True
        longest = max(map(len, self.sequences)) + self.max_new_tokens
        logits = self.model.vocabulary * (self.model.dtype.itemsize + 4)
        free = free_memory(self.model)
        if free is not None:
            self.most = max(
                1, min(self.most, int(_SHARE_OF_MEMORY * free / (longest * cache.bytes_per_token + logits)))
            )
        self.most = math.ceil(len(self.sequences) / math.ceil(len(self.sequences) / self.most))
