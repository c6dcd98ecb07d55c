"""The batches of one question to a model, in memory one after the other, from disk all of them block by block."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, takewhile
from typing import Any, Generic, TypeVar

import torch

from weight_edit.runtime.batching import PASS_COST, Batch, attempt, grouped, padded, too_long
from weight_edit.runtime.forward_pass import as_pass, forward_backbone, suited_threads
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import pass_cost, rows_in_waiting
from weight_edit.runtime.padding import hides_padding
from weight_edit.runtime.prefix import Before, Prefix, filled, new_cache
from weight_edit.runtime.shares import Shares
from weight_edit.runtime.stems import Stems
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, UnmixedError, Variant, under
from weight_edit.utils.progress import Bar

T = TypeVar("T")


@dataclass(frozen=True)
class _Row:
    """A sequence under a variant.

    Attributes:
        number: of the row, in all of the request.
        sequence: which it is.
        variant: the edit.
    """

    number: int
    sequence: int
    variant: Variant


@dataclass(kw_only=True)
class Request(Generic[T]):
    """The passes of one question.

    Attributes:
        prefix: the tokens that are read once for each variant.
        most: rows at once, so far.
        read: the positions of a row whose logits are read.
        trunk: see `run_model`.
        stems: see `run_model`.
        mixed: several variants may share a batch, as far as is known.
        chunks: the sequences that share a batch, for each batch under one variant.
    """

    model: Model
    sequences: Sequence[Sequence[int]]
    step: Callable[[Batch], T]
    prefix: list[int]
    trunk: Trunk | None
    most: int
    read: int
    stems: Stems | None = None
    mixed: bool = True
    chunks: list[tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.chunks = self._grouped(range(len(self.sequences)))

    def shared_out(self, count: int, take: Callable[[Sequence[float]], Sequence[int]], costs: Sequence[float]) -> None:
        """Leave this process its part of the sequences: whole batches where there are enough.

        A batch that is the same whoever runs it gives the same numbers to the bit.

        Args:
            count: processes.
            take: the numbers of the items, by their costs, that are this process's.
            costs: of the sequences.
        """
        if len(self.chunks) >= count:
            each = [PASS_COST + sum(costs[row] for row in chunk) for chunk in self.chunks]
            self.chunks = [self.chunks[number] for number in take(each)]
        else:
            self.chunks = self._grouped(take(costs))

    def _grouped(self, rows: Sequence[int]) -> list[tuple[int, ...]]:
        """The sequences in batches; those that begin with one stem are in one, if so many may be."""
        if self.stems is None:
            return self._by_length(rows, [self.sequences[row] for row in rows], len(self.prefix))
        if self.stems.held is not None:
            own = [self.sequences[row][len(self.stems.tokens[self.stems.of[row]]) :] for row in rows]
            return self._by_length(rows, own, 0)
        shared: dict[int, list[int]] = {}
        for row in rows:
            shared.setdefault(self.stems.of[row], []).append(row)
        alone = [some[0] for some in shared.values() if len(some) == 1]
        forked = {stem: some for stem, some in shared.items() if len(some) > 1}
        found = self._by_length(alone, [self.sequences[row] for row in alone], len(self.prefix)) if alone else []
        if forked:
            most = max(1, self.most // max(map(len, forked.values())))
            stems = [self.stems.tokens[stem] for stem in forked]
            groups = self._by_length(list(forked), stems, len(self.prefix), most)
            found += [tuple(row for stem in group for row in forked[stem]) for group in groups]
        return found

    def _by_length(
        self, rows: Sequence[int], sequences: Sequence[Sequence[int]], known: int, most: int | None = None
    ) -> list[tuple[int, ...]]:
        """Rows in groups, by the length of a sequence of each."""
        groups = grouped(
            sequences,
            self.most if most is None else most,
            known=known,
            unpadded=not hides_padding(self.model, self.sequences),
            pass_cost=pass_cost(self.model),
        )
        return [tuple(rows[row] for row in group) for group in groups]

    def results(self, numbered: Sequence[tuple[int, Variant]], drawn: Bar | None) -> Iterator[tuple[Batch, T]]:
        """All batches with what `step` made of them.

        Args:
            numbered: variants with their numbers.
        """
        chunks = self.chunks
        waiting = deque(self._ordered(numbered))
        while waiting and chunks:
            count = self._together([variant for _, variant in waiting], max(map(len, chunks)))
            some = [waiting.popleft() for _ in range(count)]
            rows = [
                [
                    _Row(number * len(self.sequences) + sequence, sequence, variant)
                    for number, variant in some
                    for sequence in chunk
                ]
                for chunk in chunks
            ]
            yield from self._in_memory(rows, drawn) if self.model.offload is None else self._from_disk(rows, drawn)

    def _ordered(self, numbered: Sequence[tuple[int, Variant]]) -> list[tuple[int, Variant]]:
        """Variants with their numbers; with a trunk, the plain model first, then by where they begin."""
        if self.trunk is None:
            return list(numbered)
        return sorted(numbered, key=lambda each: (bool(each[1].hooks), each[1].begins(self.model)))

    def _together(self, variants: Sequence[Variant], chunk: int) -> int:
        """How many of the next variants go together."""
        first = variants[0]
        # The plain model's streams are kept of batches that hold nothing else.
        if first.alone or not self.mixed or (self.trunk is not None and not first.hooks):
            return 1
        joined = list(takewhile(lambda each: not each.alone, variants))
        if self.model.offload is not None:
            return len(joined)
        if self.trunk is not None:
            begins = first.begins(self.model)
            joined = list(takewhile(lambda each: each.begins(self.model) == begins, joined))
        return min(len(joined), max(1, self.most // chunk))

    def _in_memory(self, chunks: list[list[_Row]], drawn: Bar | None) -> Iterator[tuple[Batch, T]]:
        """The batches of some variants, one after the other, in halves where memory runs out."""
        variants = list(dict.fromkeys(row.variant for chunk in chunks for row in chunk))
        if len(variants) > 1 and not self.mixed:
            for variant in variants:
                yield from self._in_memory(_of(chunks, [variant]), drawn)
            return
        waiting = deque(chunks)
        shares = Shares(drawn, 0)
        try:
            start = self._start(variants, chunks)
            prefix = self._read_prefix(variants, start)
            while waiting:
                rows = waiting[0]
                if len(rows) > self.most:
                    waiting.popleft()
                    waiting.extendleft(reversed(self._parts(rows)))
                    continue
                shares = Shares(drawn, len(rows))
                with shares.moving(self.model, self.model.anatomy.n_layers):
                    outcome = attempt(partial(self._read, rows, prefix, start))
                if outcome is None:
                    shares.take_back()
                    if len(rows) == 1:
                        raise too_long(len(self.sequences[rows[0].sequence]))
                    self.most = len(rows) // 2
                    continue
                yield outcome[0]
                shares.complete()
                waiting.popleft()
        except UnmixedError:
            if len(variants) == 1:
                # Not the edits share the module's rows: what reads the stream there cannot tell them apart.
                raise
            shares.take_back()
            self.mixed = False
            yield from self._in_memory(list(waiting), drawn)
        except _CrowdedError:
            half = len(variants) // 2
            for some in (variants[:half], variants[half:]):
                yield from self._in_memory(_of(chunks, some), drawn)

    def _from_disk(self, chunks: list[list[_Row]], drawn: Bar | None) -> Iterator[tuple[Batch, T]]:
        """The batches of some variants, all of which go through a block before the next one is read."""
        disk = self.model.offload
        assert disk is not None
        # Variants that share a batch would read no less: all batches wait for the same weights.
        apart = [list(rows) for chunk in chunks for _, rows in groupby(chunk, lambda row: row.variant)]
        waiting = deque(part for rows in apart for part in self._parts(rows))
        at_once = rows_in_waiting(self.model, max(map(len, self.sequences)), self.read)
        while waiting:
            wave = [waiting.popleft()]
            while waiting and sum(map(len, wave)) + len(waiting[0]) <= at_once:
                wave.append(waiting.popleft())
            variants = list(dict.fromkeys(row.variant for rows in wave for row in rows))
            prefix = Prefix.of(self.model, self.prefix, variants) if self.prefix else None
            batches = [self._batch(rows, prefix) for rows in wave]
            steps: list[Callable[[], Any]] = [partial(as_pass, batch, self.step) for batch in batches]
            if prefix is not None:
                # It comes first at each block, so that its keys and values are there for the others.
                steps.insert(0, partial(as_pass, prefix.batch, partial(forward_backbone, self.model)))
            shares = Shares(drawn, sum(map(len, wave)))
            with under(self.model, variants), suited_threads(self.model):
                serving = len(steps) - len(batches)
                outcome = attempt(partial(disk.run, steps, shares.add, serving=serving))
            if outcome is None:
                shares.take_back()
                rows_tried = sum(map(len, wave))
                if rows_tried == 1:
                    raise too_long(len(self.sequences[wave[0][0].sequence]))
                at_once = rows_tried // 2
                self.most = min(self.most, at_once)
                waiting.extendleft(reversed([part for rows in wave for part in self._parts(rows)]))
                continue
            yield from zip(batches, outcome[0], strict=True)
            shares.complete()

    def _parts(self, rows: list[_Row]) -> list[list[_Row]]:
        """Rows in batches that are small enough."""
        return [rows[at : at + self.most] for at in range(0, len(rows), self.most)]

    def _read(self, rows: list[_Row], prefix: Prefix | None, start: int) -> tuple[Batch, T]:
        """The pass over some rows, behind one over their stems where several share one."""
        batch = self._behind_stems(rows, prefix) or self._batch(rows, prefix)
        return batch, self._run(batch, self.step, start, [row.sequence for row in rows])

    def _behind_stems(self, rows: list[_Row], prefix: Prefix | None) -> Batch | None:
        """The rows as a batch that goes on from their stems, which are read; None where there are none to share."""
        if self.stems is None:
            return None
        sequences = [self.sequences[row.sequence] for row in rows]
        numbers, variants = [row.number for row in rows], [row.variant for row in rows]
        if self.stems.held is not None:
            return self._behind_held(self.stems, self.stems.held, rows)
        pairs = [(row.variant, self.stems.of[row.sequence]) for row in rows]
        number = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
        if len(number) == len(rows):
            return None
        stems = [self.stems.tokens[stem] for _, stem in number]
        under = tuple(variant for variant, _ in number)
        if prefix is not None:
            before = prefix.batch_behind(self.model, stems, range(len(stems)), under, keeps=True)
        else:
            before = padded(stems, tuple(range(len(stems))), self.model.pad_id, "left")
            before = replace(before, under=under, cache=new_cache(self.model))
        before = before.to(self.model.device)
        self._run(before, partial(forward_backbone, self.model), 0, None)
        if not filled(before):
            # Its cache is of a kind of its own after all.
            self.stems = None
            return None
        source = [number[pair] for pair in pairs]
        batch = Before.of(before).batch_behind(self.model, sequences, source, numbers, variants)
        return batch.to(self.model.device)

    def _behind_held(self, stems: Stems, held: Before, rows: list[_Row]) -> Batch:
        """The rows as a batch behind stems that were read before; shorter ones have padding behind their last token.

        Else they would read some of their stem again, under an edit that it was not read under.
        """
        sequences = [self.sequences[row.sequence] for row in rows]
        source = [stems.of[row.sequence] for row in rows]
        unread = [len(some) - len(stems.tokens[stem]) for some, stem in zip(sequences, source, strict=True)]
        filled_up = [
            [*some, *[self.model.pad_id] * (max(unread) - count)] for some, count in zip(sequences, unread, strict=True)
        ]
        numbers, variants = [row.number for row in rows], [row.variant for row in rows]
        batch = held.batch_behind(self.model, filled_up, source, numbers, variants)
        # Padding may lie beyond the positions that the model has.
        last = torch.tensor([[len(some) - 1] for some in sequences])
        return replace(batch, position_ids=batch.position_ids.minimum(last)).to(self.model.device)

    def _batch(self, rows: list[_Row], prefix: Prefix | None) -> Batch:
        """The rows as a batch on the model's device."""
        sequences = [self.sequences[row.sequence] for row in rows]
        numbers, variants = tuple(row.number for row in rows), tuple(row.variant for row in rows)
        if prefix is not None:
            return prefix.batch_behind(self.model, sequences, numbers, variants).to(self.model.device)
        batch = padded(sequences, tuple(range(len(rows))), self.model.pad_id, "left")
        return replace(batch, rows=numbers, under=variants).to(self.model.device)

    def _read_prefix(self, variants: Sequence[Variant], start: int) -> Prefix | None:
        """The pass over the common prefix, under each of some variants."""
        if not self.prefix:
            return None
        prefix = Prefix.of(self.model, self.prefix, variants)
        outcome = attempt(partial(self._run, prefix.batch, partial(forward_backbone, self.model), start, None))
        if outcome is None and len(variants) > 1:
            raise _CrowdedError
        if outcome is None:
            raise too_long(len(self.prefix))
        if not prefix.fills(start):
            # Its cache is of a kind of its own after all.
            self.prefix = []
            return None
        return prefix

    def _run(self, batch: Batch, step: Callable[[Batch], Any], start: int, prompts: list[int] | None) -> Any:
        """A pass under the edits of its rows.

        Args:
            start: the block that it begins at.
            prompts: of the rows; None where the batch reads the common prefix.
        """
        variants = [variant for variant, _ in batch.runs]
        with ExitStack() as stack:
            for context in (torch.no_grad(), suited_threads(self.model)):
                stack.enter_context(context)
            if self.trunk is not None and start:
                stack.enter_context(self.trunk.resumed(start, prompts, batch))
            elif self.trunk is not None and self.trunk.suited is not False and not any(each.hooks for each in variants):
                stack.enter_context(self.trunk.recording(prompts))
            stack.enter_context(under(self.model, variants))
            return as_pass(batch, step)

    def _start(self, variants: Sequence[Variant], chunks: list[list[_Row]]) -> int:
        """The block from which passes go on from the trunk; 0 where they begin at the beginning."""
        if self.trunk is None or self.trunk.suited is False or not any(variant.hooks for variant in variants):
            return 0
        start = self.trunk.last_before(min(variant.begins(self.model) for variant in variants))
        known = len(self.prefix)
        for rows in chunks:
            columns = max(len(self.sequences[row.sequence]) for row in rows) - known
            if not self.trunk.has(start, [row.sequence for row in rows], columns, known):
                return 0
        if self.trunk.suited is None:
            self.trunk.suited = self.trunk.agrees(start, partial(self._again, start))
        return start if self.trunk.suited else 0

    def _again(self, start: int) -> None:
        """The plain pass whose end the trunk keeps, resumed at a block."""
        assert self.trunk is not None
        rows = [_Row(sequence, sequence, PLAIN) for sequence in self.trunk.tried_on]
        prefix = self._read_prefix([PLAIN], start)
        backbone = partial(forward_backbone, self.model)
        self._run(self._batch(rows, prefix), backbone, start, list(self.trunk.tried_on))


class _CrowdedError(Exception):
    """Memory ran out with the common prefix under several variants at once."""


def _of(chunks: Sequence[Sequence[_Row]], variants: Sequence[Variant]) -> list[list[_Row]]:
    """The rows of some variants, batch by batch."""
    own = [[row for row in chunk if row.variant in variants] for chunk in chunks]
    return [rows for rows in own if rows]
