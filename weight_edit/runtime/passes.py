"""Forward passes: prompts under variants in batches, each computed once and no more of it than is read.

Every question to a model goes through `run_model`. A batch holds prompts of similar length under one or several
variants; what all prompts begin with is run once for each variant (`prefix`), and what a variant does not change in
front of its first block is taken over from the plain model (`trunk`). How many rows share a batch is decided by the
memory that is free, and halved when it runs out after all. Where the model lies on disk, all batches go through a block
before the next one is read.
"""

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, groupby, islice, takewhile
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch, attempt, grouped, padded, too_long
from weight_edit.runtime.hooks import PASS, Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import pass_cost, rows_in_waiting, sequences_at_once
from weight_edit.runtime.prefix import Prefix, cache_argument, common_prefix, known_layers, unsuited
from weight_edit.runtime.processes import current, pooled
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, UnmixedError, Variant, under
from weight_edit.utils.progress import Bar, bar, is_quiet
from weight_edit.utils.threads import one_thread

T = TypeVar("T")

_TRIED, _PADDED = 300, 17
"""Tokens, and padding beside them, with which it is tried whether padding is hidden."""


class Numbered(Protocol):
    """What says which rows results are of: a batch, or the rows alone where another process ran it."""

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows' numbers."""
        ...


@dataclass(frozen=True)
class Elsewhere:
    """The rows of a batch that another process may have run.

    Attributes:
        rows: their numbers.
    """

    rows: tuple[int, ...]


def forward_backbone(model: Model, batch: Batch) -> Tensor:
    """What the model's head reads: its hidden states behind the last norm, (rows, tokens, d_model).

    Args:
        batch: on the model's device.
    """
    backbone = model.backbone
    hidden: Tensor = backbone(**_inputs(backbone, batch))[0]
    return hidden


def last_logits(model: Model, batch: Batch, count: int) -> Tensor:
    """The logits of the last `count` columns of a left-padded batch: (rows, count, vocabulary).

    Gradients flow where the caller has them enabled.
    """
    inputs = _inputs(model.model, batch)
    if "logits_to_keep" in inspect.signature(model.model.forward).parameters:
        inputs["logits_to_keep"] = count
    logits: Tensor = model.model(**inputs).logits
    return logits[:, -count:]


def run_model(
    model: Model,
    sequences: Sequence[Sequence[int]],
    step: Callable[[Batch], T],
    *,
    variants: Sequence[Variant] = (PLAIN,),
    keep: Sequence[int] | None = None,
    read: int = 0,
    trunk: Trunk | None = None,
    batch_size: int | None = None,
    description: str | None = None,
    within: Bar | None = None,
    blocks: int | None = None,
    unit: str = "",
    costs: Sequence[float] | None = None,
) -> Iterator[tuple[Numbered, T]]:
    """Apply `step` to batches of all sequences under all variants, as much at once as memory allows.

    The rows of a batch are numbered `variant * len(sequences) + sequence`. `step` may be called again for rows whose
    first try ran out of memory, so its effects belong in what it returns, not in what it changes. Several processes
    that ask together (`processes`) each run a share of the sequences, or of the variants where these are more than
    the sequences, and all get all results.

    Args:
        step: runs `forward_backbone` or `last_logits` on the batch, once.
        variants: the edits, each run as if it were alone.
        keep: how many of each sequence's last tokens the pass is asked about: what all begin with, in front of these,
            may be run once. None asks about all tokens.
        read: the positions of a row whose logits are read, for what memory allows.
        trunk: filled by passes of the plain model, and used for variants that begin behind the first block.
        batch_size: rows at once, at most; None is as many as memory allows.
        description: names the progress bar; None draws none.
        within: a bar of the caller's that counts rows, instead of one's own.
        blocks: how many calls of blocks a batch takes, for the bar to move with each; all of the model's when None.
        unit: what one's own bar counts.
        costs: of each sequence, by which several processes share them; its tokens when None.

    Raises:
        ProcessError: another process ended.
        UsageError: a sequence is empty or has a token that the model has no embedding for, the batch size is below 1,
            or memory runs out with a single sequence.
    """
    check_tokens(model, sequences)
    longest = max(map(len, sequences), default=1)
    if trunk is not None and trunk.sequences != [list(sequence) for sequence in sequences]:
        raise ValueError("a trunk is of one list of prompts")
    request = _Request(
        model=model,
        sequences=sequences,
        step=step,
        prefix=[] if keep is None else common_prefix(model, sequences, keep),
        trunk=trunk if model.offload is None else None,
        most=sequences_at_once(model, longest, read) if batch_size is None else batch_size,
        calls=model.anatomy.n_layers if blocks is None else blocks,
    )
    taken = list(enumerate(variants))
    processes = current()
    if processes is not None:
        rank = processes.place.rank
        if len(sequences) >= processes.place.count or len(sequences) >= len(variants):
            lengths = [len(sequence) for sequence in sequences]
            request.mine = processes.share(lengths if costs is None else costs)[rank]
        else:
            taken = [taken[number] for number in processes.share([1] * len(variants))[rank]]
    count = len(request.own) * len(taken)
    with bar(description, count, unit) if description else nullcontext(within) as drawn:
        if processes is None:
            yield from request.results(taken, drawn)
            return

        def run() -> list[tuple[tuple[int, ...], T]]:
            return [(batch.rows, made) for batch, made in request.results(taken, drawn)]

        parts = pooled(run, f"{len(sequences)} prompts under {len(variants)} edits")
        for number, part in enumerate(parts):
            rows = sum(len(some) for some, _ in part)
            processes.prompts[number] += rows
            if within is not None and number != processes.place.rank:
                within.advance(rows)
            for some, made in part:
                yield Elsewhere(some), made


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
class _Request(Generic[T]):
    """The passes of one question.

    Attributes:
        prefix: the tokens that are read once for each variant.
        most: rows at once, so far.
        calls: of blocks in a batch.
        mixed: several variants may share a batch, as far as is known.
        mine: the sequences that this process runs; None is all.
    """

    model: Model
    sequences: Sequence[Sequence[int]]
    step: Callable[[Batch], T]
    prefix: list[int]
    trunk: Trunk | None
    most: int
    calls: int
    mixed: bool = True
    mine: Sequence[int] | None = None

    @property
    def own(self) -> Sequence[int]:
        """The sequences that this process runs."""
        return range(len(self.sequences)) if self.mine is None else self.mine

    def results(self, numbered: Sequence[tuple[int, Variant]], drawn: Bar | None) -> Iterator[tuple[Batch, T]]:
        """All batches with what `step` made of them.

        Args:
            numbered: variants with their numbers.
        """
        unpadded = not hides_padding(self.model, self.sequences)
        own = self.own
        groups = grouped(
            [self.sequences[row] for row in own],
            self.most,
            known=len(self.prefix),
            unpadded=unpadded,
            pass_cost=pass_cost(self.model),
        )
        chunks = [tuple(own[row] for row in group) for group in groups]
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
                own = [[row for row in chunk if row.variant is variant] for chunk in chunks]
                yield from self._in_memory([rows for rows in own if rows], drawn)
            return
        waiting = deque(chunks)
        shares = _Shares(drawn, 0)
        try:
            start = self._start(variants, chunks)
            prefix = self._read_prefix(variants, start)
            while waiting:
                rows = waiting[0]
                if len(rows) > self.most:
                    waiting.popleft()
                    waiting.extendleft(reversed(self._parts(rows)))
                    continue
                batch, shares = self._batch(rows, prefix), _Shares(drawn, len(rows))
                with self._moving(shares):
                    outcome = attempt(partial(self._run, batch, self.step, start, [row.sequence for row in rows]))
                if outcome is None:
                    shares.take_back()
                    if len(rows) == 1:
                        raise too_long(len(self.sequences[rows[0].sequence]))
                    self.most = len(rows) // 2
                    continue
                yield batch, outcome[0]
                shares.complete()
                waiting.popleft()
        except UnmixedError:
            shares.take_back()
            self.mixed = False
            yield from self._in_memory(list(waiting), drawn)

    def _from_disk(self, chunks: list[list[_Row]], drawn: Bar | None) -> Iterator[tuple[Batch, T]]:
        """The batches of some variants, all of which go through a block before the next one is read."""
        disk = self.model.offload
        assert disk is not None
        # Variants that share a batch would read no less: all batches wait for the same weights.
        apart = [list(rows) for chunk in chunks for _, rows in groupby(chunk, lambda row: row.variant)]
        waiting = deque(part for rows in apart for part in self._parts(rows))
        at_once = rows_in_waiting(self.model, max(map(len, self.sequences)))
        while waiting:
            wave = [waiting.popleft()]
            while waiting and sum(map(len, wave)) + len(waiting[0]) <= at_once:
                wave.append(waiting.popleft())
            variants = list(dict.fromkeys(row.variant for rows in wave for row in rows))
            prefix = Prefix.of(self.model, self.prefix, variants) if self.prefix else None
            batches = [self._batch(rows, prefix) for rows in wave]
            steps: list[Callable[[], Any]] = [partial(_as_pass, batch, self.step) for batch in batches]
            if prefix is not None:
                # It comes first at each block, so that its keys and values are there for the others.
                steps.insert(0, partial(_as_pass, prefix.batch, partial(forward_backbone, self.model)))
            shares = _Shares(drawn, sum(map(len, wave)))
            with under(self.model, variants), _suited_threads(self.model):
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
            for context in (torch.no_grad(), _suited_threads(self.model)):
                stack.enter_context(context)
            if self.trunk is not None and start:
                stack.enter_context(self.trunk.resumed(start, prompts, batch))
            elif self.trunk is not None and self.trunk.suited is not False and not any(each.hooks for each in variants):
                stack.enter_context(self.trunk.recording(prompts))
            stack.enter_context(under(self.model, variants))
            return _as_pass(batch, step)

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

    def _moving(self, shares: "_Shares") -> AbstractContextManager[None]:
        """Within the context, the bar moves with the blocks of a batch: one may take minutes."""
        if not shares.seen or is_quiet():
            return nullcontext()
        return each_block(self.model, partial(shares.add, 1 / max(1, self.calls)))


def hides_padding(model: Model, sequences: Sequence[Sequence[int]]) -> bool:
    """Whether rows of different lengths may share a batch.

    Where only attention reads other tokens, its mask hides padding. A state that is carried on is another matter:
    whether the padding's token matters is seen by another token there, which must give the same to the bit. So it is
    with keys of spans that padding shifts: what is tried is longer than a span, 128 tokens.
    """
    by_length = sorted(sequences, key=len)
    if model.hides_padding is None and by_length and len(by_length[0]) < len(by_length[-1]):
        if unsuited(model) is None:
            model.hides_padding = True
        elif model.offload is not None or not known_layers(model):
            # From disk, batches of one length each cost no more reading.
            return False
        else:
            positions = any(embedding.role == "position" for embedding in model.anatomy.embeddings)
            long, short = (
                list(islice(cycle(some), len(some) if positions else max(len(some), least)))
                for some, least in ((by_length[-1], _TRIED + _PADDED), (by_length[0], _TRIED))
            )
            other = next(token for token in range(model.embeddings) if token != model.pad_id)
            ends = [_end_beside(model, long, short, pad) for pad in (model.pad_id, other)]
            model.hides_padding = torch.equal(*ends)
    return model.hides_padding is not False


def _end_beside(model: Model, long: Sequence[int], short: Sequence[int], pad: int) -> Tensor:
    """The stream behind the last block at the tokens of the shorter one of two sequences in a batch."""
    batch = padded([long, short], (0, 1), pad, "left").to(model.device)
    found: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        found.append(x[1, -len(short) :])
        return x

    place = Hook(model.anatomy.blocks[-1].module, "output", keep)
    with torch.no_grad(), _suited_threads(model), hooked(model.model, [place]):
        _as_pass(batch, partial(forward_backbone, model))
    return found[0]


class _Shares:
    """The share of a batch that the progress bar has counted; all of its rows in the end."""

    def __init__(self, drawn: Bar | None, rows: int) -> None:
        self._drawn, self._rows, self._told = drawn, rows, 0.0

    @property
    def seen(self) -> bool:
        """Whether there is a bar."""
        return self._drawn is not None

    def add(self, share: float) -> None:
        """Advance by a share of the batch, at most to its end."""
        self._tell(min(share * self._rows, self._rows - self._told))

    def complete(self) -> None:
        """Advance to the end of the batch."""
        self._tell(self._rows - self._told)

    def take_back(self) -> None:
        """Take the batch's progress back: it is repeated."""
        self._tell(-self._told)

    def _tell(self, rows: float) -> None:
        self._told += rows
        if self._drawn is not None and rows:
            self._drawn.advance(rows)


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


def _as_pass(batch: Batch, step: Callable[[Batch], Any]) -> Any:
    """What a step makes of a batch; hooks that it attaches act in this pass alone."""
    token = PASS.set(batch)
    try:
        return step(batch)
    finally:
        PASS.reset(token)


def _suited_threads(model: Model) -> AbstractContextManager[None]:
    return one_thread() if model.small else nullcontext()


def _inputs(module: nn.Module, batch: Batch) -> dict[str, Any]:
    """The arguments of `module.forward`; positions and cache only if the family takes them."""
    taken = inspect.signature(module.forward).parameters
    optional = {"position_ids": batch.position_ids, "use_cache": batch.cache is not None}
    name = cache_argument(module)
    return {
        "input_ids": batch.ids,
        "attention_mask": batch.mask,
        **({} if batch.cache is None or name is None else {name: batch.cache}),
        **{name: value for name, value in optional.items() if name in taken},
    }
