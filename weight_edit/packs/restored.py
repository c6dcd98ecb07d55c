"""A tensor of the base, restored from the edited one: strip by strip, by a guess and its corrections."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.tensor.edited import Rounding
from weight_edit.checkpoint.tensor.header import size_of
from weight_edit.checkpoint.tensor.mapping import AffineMap
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes, Plain, Storage, Strip
from weight_edit.errors import UsageError
from weight_edit.packs.corrections import ByteCorrections, Corrections, FloatCorrections
from weight_edit.packs.prediction import Factors, Floats, Removed, guessed, of_planes

TOGETHER = 1 << 18
"""Numbers of a strip, and bytes of one of a part that is not guessed."""

MOST_SUMS = 1 << 26
"""The most bytes of what an edit took from one matrix; real ones have less than a hundredth."""

Payloads = Callable[[int], bytes]
"""Gives the next payload, of at most so many bytes."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Guess:
    """How the strips of one tensor are guessed; the same where a pack is made and where it is used.

    Attributes:
        storage: of the edited tensor.
        along_rows: whether the vectors are columns.
        factors: of the edit's map.
        keeps_lengths: whether lengths were kept.
    """

    storage: Storage
    along_rows: bool
    factors: Factors
    keeps_lengths: bool

    @property
    def item(self) -> int:
        """The bytes of a number of what was removed."""
        dtype = self.storage.parts[self.storage.name][0]
        return 8 if isinstance(self.storage, Plain) and dtype in ("F32", "F64") else 4

    @property
    def corrections(self) -> Corrections:
        """Those of the tensor's bytes."""
        plain = isinstance(self.storage, Plain)
        return FloatCorrections(self.storage.parts[self.storage.name][0]) if plain else ByteCorrections()

    def removed_size(self, vectors: int) -> int:
        """The bytes of what was removed from so many vectors."""
        return vectors * (self.factors.rank + self.keeps_lengths) * self.item

    @property
    def longest_removed(self) -> int:
        """The most bytes of what was removed that are held at a time."""
        rows = max((last - first for first, last in self.storage.strips(TOGETHER)), default=0)
        return self.removed_size(self.storage.cols if self.along_rows else rows)

    def removed(self, raw: bytes | memoryview) -> Removed:
        """What was removed, of its bytes."""
        numbers = of_planes(raw, self.item)
        count = self.factors.rank + self.keeps_lengths
        # Of an addition, nothing is removed.
        rows = numbers.reshape(count, numbers.size // max(1, count))
        return Removed(rows[: self.factors.rank], rows[-1] if self.keeps_lengths else None)

    def strip(self, edited: Strip, removed: Removed, first: int, last: int) -> tuple[Bytes, NDArray[np.float64] | None]:
        """The guessed bytes of some rows, and by what each number was multiplied, flat."""
        storage, rows = self.storage, last - first
        values = np.empty((rows, storage.cols))
        for begin, end in storage.tiles():
            values[:, begin:end] = storage.decode(edited, rows, begin, end)
        with np.errstate(over="ignore", invalid="ignore"):
            values, scale = guessed(values, self.factors, removed, (first, last), self.along_rows)
            stored = {part: raw.copy() for part, raw in edited.items()}
            for begin, end in storage.tiles():
                self._store(np.ascontiguousarray(values[:, begin:end]), begin, stored)
        return stored[storage.name], None if scale is None else scale.reshape(-1)

    def _store(self, values: Floats, first: int, into: Strip) -> None:
        """Store a tile, on the edited tensor's own grid where there is one."""
        if isinstance(self.storage, Coded):
            np.clip(values, -1e30, 1e30, out=values)
            self.storage.put_codes(self.storage.neighbours(values, first, into).nearest(), first, into)
        else:
            self.storage.encode(values, first, into, 0.0)


class RawPart(Storage):
    """A tensor of which nothing is known but its bytes, such as scales."""

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.parts = {name: (dtype, shape)}
        self.slabs, self.rows, self.cols = 1, 1, size_of(dtype, shape)

    def strip_bytes(self, rows: int) -> Mapping[str, int]:
        """See `Storage`."""
        return {self.name: rows * self.cols}

    def load(self, read: ByteReader, slab: int, first: int, last: int, memory: Memory = fresh) -> Strip:
        """See `Storage`."""
        raw = memory("load", self.cols, np.uint8)
        read(self.name, 0, raw)
        return {self.name: raw}

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> Floats:
        """See `Storage`.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self.name} has no numbers")

    def encode(self, values: Floats, first: int, into: Strip, peak: float) -> int:
        """See `decode`."""
        raise TypeError(f"{self.name} has no numbers")


@dataclass(frozen=True, eq=False, kw_only=True)
class RestoredTensor:
    """A base's tensor as a stream of bytes; a `TensorWriter` whose source is the edited checkpoint.

    Attributes:
        source, target: the edited tensor's storage.
        part: which of its tensors on disk.
        size: of that, in bytes.
        guess: of its numbers; None for a part that is corrected as it is, such as scales.
        payloads: opens what the pack has for it.
    """

    source: Storage
    target: Storage
    part: str
    size: int
    guess: Guess | None
    payloads: Callable[[], Payloads]
    map: AffineMap | None = None
    along_rows: bool = False
    gains: Floats | None = None
    keep_norms: bool = False

    def blocks(
        self, part: str, read: ByteReader, rounding: Rounding | None = None, memory: Memory = fresh
    ) -> Iterator[Bytes]:
        """The bytes of the tensor, in order.

        Raises:
            UsageError: a pack that does not fit.
        """
        take = self.payloads()
        if self.guess is None:
            yield from self._as_it_is(read, take)
            return
        guess, storage = self.guess, self.source
        if guess.longest_removed > MOST_SUMS:
            raise UsageError(
                f"the pack says that {guess.longest_removed} bytes were removed from one matrix; it is no pack of ours"
            )
        corrections = guess.corrections
        for slab in range(storage.slabs):
            whole = None
            if guess.along_rows:
                size = guess.removed_size(storage.cols)
                whole = guess.removed(_exactly(take(size), size))
            for first, last in storage.strips(TOGETHER):
                edited = storage.load(read, slab, first, last)
                size = 0 if whole is not None else guess.removed_size(last - first)
                payload = take(size + corrections.longest(edited[self.part].size))
                removed = guess.removed(_exactly(payload[:size], size)) if whole is None else whole
                found, scale = guess.strip(edited, removed, first, last)
                yield corrections.applied(payload[size:], found, edited[self.part], scale)

    def _as_it_is(self, read: ByteReader, take: Payloads) -> Iterator[Bytes]:
        corrections = ByteCorrections()
        for begin in range(0, self.size, TOGETHER):
            raw = np.empty(min(TOGETHER, self.size - begin), np.uint8)
            read(self.part, begin, raw)
            yield corrections.applied(take(corrections.longest(raw.size)), raw, raw, None)


def _exactly(raw: bytes, size: int) -> bytes:
    if len(raw) != size:
        raise UsageError("the pack's account of what was removed does not fit the edited checkpoint")
    return raw
