"""Greedy decoding in a batch that answers leave when they end, and that others enter.

The prompts' common prefix, mostly a template's, is read once. The other prompts enter in groups of similar length, the
longest first. An answer that has ended is fed padding until enough have, since leaving copies the cache of the others.

Of a model on disk all prompts go in lockstep, as many as memory allows: a token of each costs one reading of the
weights, and so do all the prompts that enter together.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

import torch
from torch import Tensor

from weight_edit.runtime.batching import attempt, group_sizes, longest_first, too_long
from weight_edit.runtime.forward_pass import each_block, suited_threads
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import MOST_SEQUENCES, rows_at_once, tokens_at_once
from weight_edit.runtime.prefix import common_prefix
from weight_edit.runtime.row_cache import RowCache
from weight_edit.utils.progress import is_quiet

FirstRead = Callable[[Sequence[int], Tensor], None]
"""Is given the numbers of some prompts and the logits (prompts, vocabulary) that their first tokens are read off."""


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
    first: FirstRead | None = None,
) -> list[Decoded]:
    """The greedy answer to each token sequence.

    Args:
        ends: the tokens that end an answer.
        batch_size: the rows at once, at most; None is what memory allows, up to `MOST_SEQUENCES` where the model is
            in memory.
        advance: is told how many answers more are done, in parts of answers; less than 0 where memory ran out.
        first: reads each prompt's first logits, once more where memory ran out.

    Raises:
        UsageError: a sequence is empty, the batch size is below 1, or memory runs out with one sequence.
        UnsuitedError: the model keeps its cache in a form from which rows cannot be taken.
    """
    order = longest_first(sequences, 1 if batch_size is None else batch_size)
    if batch_size is None:
        batch_size = MOST_SEQUENCES if model.offload is None else len(sequences)
    running = _Running(
        model=model,
        sequences=sequences,
        ends=ends,
        max_new_tokens=max_new_tokens,
        most=min(batch_size, len(sequences)),
        most_tokens=tokens_at_once(model),
        advance=advance,
        first=first,
        waiting=deque(order),
    )
    seen = nullcontext() if is_quiet() else each_block(model, running.passed)
    with torch.no_grad(), seen, suited_threads(model):
        while running.left:
            if attempt(running.step) in (None, (False,)):
                running.retreat()
    return [running.answers[row] for row in range(len(sequences))]


@dataclass(kw_only=True)
class _Running:
    """The state of a batch.

    Attributes:
        most: rows at once.
        most_tokens: that a pass reads at once, if they are more than one prompt's.
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
    most_tokens: int
    advance: Callable[[float], None]
    first: FirstRead | None
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

    def step(self) -> bool:
        """Give each row a token, or let prompts enter and give each of those its first; False if one is too long."""
        running = [row for row in self.rows if not row.ended]
        if not running or 4 * self.idle >= len(self.rows):
            return self._renew(running)
        assert self.cache is not None
        tokens = [[self.model.pad_id if row.ended else row.tokens[-1]] for row in self.rows]
        self._add([(self.cache, self.rows, tokens)])
        self.idle += sum(row.ended for row in self.rows)
        return True

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
        self._return(out)
        self.rows, self.cache, self.idle, self._told = [], None, 0, 0.0
        self.most = len(out) // 2

    def _longest_first(self, row: int) -> tuple[int, int]:
        return -len(self.sequences[row]), row

    def _renew(self, running: list[Decoded]) -> bool:
        """Let answers leave that have ended, and as many prompts enter as there is room for; False if one does not fit.

        Fewer are read at once where memory runs out of it: those that are decoded may fit none the less.
        """
        parts: list[tuple[RowCache, list[int]]] = []
        if self.cache is not None and running:
            parts.append((self.cache, [index for index, row in enumerate(self.rows) if not row.ended]))
        self.rows, self.cache, self.idle = running, None, 0
        if not self.measured and self.model.offload is None:
            # From disk it would cost a reading of all weights.
            self._read_prefix()
        while self.waiting and len(self.rows) < self.most:
            groups = self._groups()
            before, self.rows = self.rows, [*self.rows, *chain(*groups)]
            entered = attempt(partial(self._enter, groups))
            if entered is None:
                if max(map(len, groups)) == 1:
                    return False
                self.rows = before
                self._return([row for group in groups for row in group])
                self.most_tokens = max(len(group) * self._unread(group[0].row) for group in groups) // 2
                continue
            for group, cache in zip(groups, entered[0], strict=True):
                parts.append((cache, [index for index, row in enumerate(group) if not row.ended]))
            self.rows = [row for row in self.rows if not row.ended]
            self._measure(entered[0][0])
        parts = [part for part in parts if part[1]]
        self.cache = RowCache.joined(parts) if parts else None
        return True

    def _groups(self) -> list[list[Decoded]]:
        """The prompts that enter next, in groups of similar length: one group, or all that go through disk together."""
        groups = [self._group(self.most - len(self.rows))]
        if self.model.offload is not None and (self.measured or self._surely_fit):
            while self.waiting and (room := self.most - len(self.rows) - sum(map(len, groups))) > 0:
                groups.append(self._group(room))
        return groups

    @property
    def _surely_fit(self) -> bool:
        """Whether memory holds all prompts, however much the model keeps of a token."""
        return (rows_at_once(self.model, self._longest) or 0) >= len(self.sequences)

    @property
    def _longest(self) -> int:
        """The tokens of the longest prompt with its answer."""
        return max(map(len, self.sequences)) + self.max_new_tokens

    def _group(self, room: int) -> list[Decoded]:
        unread = [self._unread(row) for row in islice(self.waiting, room)]
        count = group_sizes(unread, room, at_once=self.most_tokens)[0]
        group = [Decoded(row=self.waiting.popleft()) for _ in range(count)]
        self.answers |= {row.row: row for row in group}
        return group

    def _unread(self, row: int) -> int:
        """The tokens of a prompt behind the common prefix."""
        return len(self.sequences[row]) - (self.prefix.width if self.prefix else 0)

    def _return(self, rows: Sequence[Decoded]) -> None:
        """Let prompts that have entered wait again."""
        for row in rows:
            del self.answers[row.row]
        self.waiting = deque(sorted([*self.waiting, *(row.row for row in rows)], key=self._longest_first))

    def _enter(self, groups: Sequence[list[Decoded]]) -> list[RowCache]:
        """The caches of new prompts, each of which gets its first token."""
        passes = []
        for group in groups:
            prompts = [self.sequences[row.row] for row in group]
            lengths = [len(prompt) for prompt in prompts]
            if self.prefix is None:
                columns, cache = max(lengths), RowCache.empty(self.model, len(group))
            else:
                columns = max(lengths) - self.prefix.width
                cache = self.prefix.shared(lengths, columns)
            passes.append((cache, group, [prompt[-columns:] for prompt in prompts]))
        self._add(passes)
        return [cache for cache, _, _ in passes]

    def _add(self, passes: Sequence[tuple[RowCache, list[Decoded], Sequence[Sequence[int]]]]) -> None:
        """Read tokens of each row, and add the likeliest next one to its answer."""
        self._expected = sum(not row.ended for _, rows, _ in passes for row in rows) / self.max_new_tokens
        steps = [partial(self._likeliest, cache, rows, tokens) for cache, rows, tokens in passes]
        offload = self.model.offload
        found = [step() for step in steps] if offload is None else offload.run(steps, lambda _: None)
        moved = -self._told
        for (cache, rows, _), read in zip(passes, found, strict=True):
            for index, (token, bad) in enumerate(read):
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

    def _likeliest(
        self, cache: RowCache, rows: Sequence[Decoded], tokens: Sequence[Sequence[int]]
    ) -> list[tuple[int, bool]]:
        """The token that follows some more tokens of each row, and whether its logits held NaN."""
        logits = cache.forward(self.model, tokens)
        if self.first is not None and not rows[0].tokens:
            self.first([row.row for row in rows], logits)
        values, likeliest = logits.max(dim=-1)
        return [(int(token), bool(bad)) for token, bad in torch.stack([likeliest, values.isnan()], dim=-1).tolist()]

    def _read_prefix(self) -> None:
        tokens = common_prefix(self.model, self.sequences, [1] * len(self.sequences))
        if tokens:
            cache = RowCache.empty(self.model, 1)
            cache.forward(self.model, [tokens])
            self.prefix = cache
            self._measure(cache)

    def _measure(self, cache: RowCache) -> None:
        """Once, lower the number of rows to what memory allows, and share the prompts out evenly."""
        if self.measured:
            return
        self.measured = True
        fitting = rows_at_once(self.model, self._longest, cache.bytes_per_token)
        self.most = self.most if fitting is None else min(self.most, fitting)
        self.most = math.ceil(len(self.sequences) / math.ceil(len(self.sequences) / self.most))
