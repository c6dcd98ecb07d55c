"""The bytes of an edited tensor: a low-rank affine map along one axis, applied tile by tile.

`x -> x - L (R^T x) + c` on the vectors along an axis. Where they are columns, the tensor is read more than once, see
`mapping`. Where they are rows, each strip has all that it needs. Arithmetic is in float64 and rounding is once: float32
would do for the size of the numbers, but not where the edit leaves little of one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.tensor.along import Along
from weight_edit.checkpoint.tensor.mapping import AffineMap, SlabMap
from weight_edit.checkpoint.tensor.scratch import Memory, fresh, scratch
from weight_edit.checkpoint.tensor.storage import TILE, ByteReader, Bytes, Storage, Strip
from weight_edit.errors import UsageError
from weight_edit.utils.fixed_sums import dot


class TensorWriter(Protocol):
    """A tensor of the output, computed part by part from a tensor of the source."""

    @property
    def source(self) -> Storage: ...
    @property
    def target(self) -> Storage: ...
    @property
    def map(self) -> AffineMap | None: ...
    @property
    def along_rows(self) -> bool: ...
    @property
    def gains(self) -> NDArray[np.float64] | None: ...
    @property
    def keep_norms(self) -> bool: ...
    def blocks(
        self, part: str, read: ByteReader, rounding: "Rounding | None" = None, memory: Memory = fresh
    ) -> Iterator[Bytes]: ...


@dataclass(kw_only=True)
class EditedStrip:
    """A strip of rows of an edited tensor.

    Attributes:
        slab, first, last: which.
        before: their bytes in the source.
        tiles: first column and float64 numbers after the edit, before they are stored.
        stored: their bytes in the output, by part.
        rescaled: blocks of theirs, or of the rows before, whose scale was made anew.
    """

    slab: int
    first: int
    last: int
    before: Strip
    tiles: list[tuple[int, NDArray[np.float64]]]
    stored: Strip
    rescaled: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class EditedTensor:
    """An edited tensor as a stream of bytes.

    Attributes:
        source: how the numbers lie on disk.
        target: how they are stored: the same, except where a quantised tensor becomes a plain one.
        map: the map; None when only the format changes.
        along_rows: whether the vectors that it maps are the columns of the storage's matrices.
        gains: float64, shape (d,): what each vector is multiplied by, entry by entry, before the map.
        keep_norms: whether each vector is brought back to its length after the map; see `norm_restoring_factors`
            for those that the map removes. Where vectors are columns, the tensor is read three times for it, not twice.

    Raises:
        ValueError: gains, or lengths to be kept, without a map; both together; lengths to be kept and a constant.
    """

    source: Storage
    target: Storage
    map: AffineMap | None
    along_rows: bool
    gains: NDArray[np.float64] | None = None
    keep_norms: bool = False

    def __post_init__(self) -> None:
        if self.map is None and (self.gains is not None or self.keep_norms):
            raise ValueError(f"{self.source.name}: gains and keep_norms belong to a map")
        if self.keep_norms and (self.gains is not None or (self.map is not None and self.map.constant is not None)):
            raise ValueError(f"{self.source.name}: keep_norms goes with neither gains nor a constant")

    def blocks(
        self, part: str, read: ByteReader, rounding: "Rounding | None" = None, memory: Memory = fresh
    ) -> Iterator[Bytes]:
        """The bytes of one part of the target, in order.

        Args:
            part: one of the target's.
            read: reads the source.
            rounding: adds up what storing does to the numbers.
            memory: with `scratch`, a block is good only until the next is asked for.

        Raises:
            UsageError: a number that is not finite, or that the edit makes too large for the format.
        """
        if self.target.one_scale and part != self.target.name:
            for slab in range(self.source.slabs):
                yield self.target.scale_bytes(self._peak(read, slab, memory), self._held(part, read, slab))
            return
        for strip in self.strips(read, memory):
            if rounding is not None:
                rounding.add(strip)
            yield strip.stored[part]

    def strips(self, read: ByteReader, memory: Memory = fresh) -> Iterator[EditedStrip]:
        """The edited tensor, strip by strip; see `blocks` for the memory."""
        for slab in range(self.source.slabs):
            peak = self._peak(read, slab, memory) if self.target.one_scale else 0.0
            for strip in self._mapped(read, slab, memory):
                anew = sum(self.target.encode(values, first, strip.stored, peak) for first, values in strip.tiles)
                strip.rescaled = self._counted(anew, strip)
                yield strip

    def _mapped(
        self, read: ByteReader, slab: int, memory: Memory, change: SlabMap | None = None, numbers: int = TILE
    ) -> Iterator[EditedStrip]:
        """The strips of one slab, of about so many numbers, edited but not stored yet."""
        change = SlabMap(self, read, slab) if change is None else change
        for first, last in self.source.strips(numbers):
            before = self.source.load(read, slab, first, last, memory)
            values = self._numbers(before, last - first, memory)
            with np.errstate(over="ignore", invalid="ignore"):
                tiles = self._tiles(before, first, last, change, values)
            stored = self._unwritten(before, last - first, memory)
            yield EditedStrip(slab=slab, first=first, last=last, before=before, tiles=tiles, stored=stored)

    def _counted(self, anew: int, strip: EditedStrip) -> int:
        """The new scales of a strip; one of the whole slab is counted with its first rows alone."""
        return 0 if self.target.one_scale and strip.first else anew

    def _unwritten(self, before: Strip, rows: int, memory: Memory) -> Strip:
        """The bytes of rows that are to be stored: the source's, where a format keeps what they begin with."""
        sizes = self.target.strip_bytes(rows)
        stored = {part: memory(f"stored {n}", size, np.uint8) for n, (part, size) in enumerate(sizes.items())}
        if self.target.keeps_grid:
            for part, raw in stored.items():
                # Of a source in another format nothing is kept.
                np.copyto(raw, before[part] if self.target is self.source else np.uint8(0))
        # What an edit only reads is the same on both sides.
        return stored | {part: before[part] for part in self.target.aside if part in before}

    def _held(self, part: str, read: ByteReader, slab: int) -> Bytes:
        """The bytes of a slab's single scale before the edit."""
        if self.target is self.source:
            return self.source.load(read, slab, 0, min(self.source.row_step, self.source.rows))[part]
        return np.zeros(self.target.strip_bytes(0)[part], np.uint8)

    def _numbers(self, strip: Strip, rows: int, memory: Memory) -> NDArray[np.float64]:
        """A strip's numbers before the edit, in writable memory."""
        tiles = list(self.source.tiles())
        if len(tiles) == 1:
            return self.source.decode(strip, rows, *tiles[0], memory)
        values = memory("values", rows * self.source.cols, np.float64).reshape(rows, -1)
        for begin, end in tiles:
            np.copyto(values[:, begin:end], self.source.decode(strip, rows, begin, end, scratch))
        return values

    def _tiles(
        self, strip: Strip, first: int, last: int, change: SlabMap, values: NDArray[np.float64]
    ) -> list[tuple[int, NDArray[np.float64]]]:
        """The tiles of a strip, mapped in place."""
        tiles = []
        for begin, tile in change.tiles(values, first, last):
            # Not a number is neither above nor below the limit.
            if not max(tile.max(initial=0.0), -tile.min(initial=0.0)) < self.target.limit:
                self._fail(self.source.decode(strip, last - first, begin, begin + tile.shape[1]), tile)
            tiles.append((begin, tile))
        return tiles

    def _peak(self, read: ByteReader, slab: int, memory: Memory) -> float:
        """The largest absolute number of one slab after the edit."""
        strips = self._mapped(read, slab, memory)
        largest = (float(np.abs(values).max(initial=0.0)) for strip in strips for _, values in strip.tiles)
        return max(largest, default=0.0)

    def _fail(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> NoReturn:
        """Raise `UsageError` for a number that cannot be stored, naming source or edit as the cause."""
        name = printable(self.source.name)
        bad = before.size - int(np.count_nonzero(np.isfinite(before)))
        if bad:
            raise UsageError(f"tensor {name!r} has {bad} NaN or infinite values; the source is damaged, fetch it again")
        if np.isfinite(after).all():
            raise UsageError(f"tensor {name!r}: the edit makes a number too large for the format it is stored in")
        raise UsageError(f"tensor {name!r} is not finite after the edit; the source is damaged, fetch it again")


@dataclass(frozen=True)
class RoundingLoss:
    """The error made by storing an edited tensor in a quantised format.

    Attributes:
        error: |stored - wanted| / |wanted|.
        left: |R^T (W' - c)| / |R^T W|, what is left along the directions in W' as stored, but for the map's constant;
            against random directions' where that is more. Gains are in W before. 0 without a map.
        kept: <stored - before, wanted - before> / |wanted - before|^2, the share of the edit that is in the file; 1
            where the edit changes nothing.
        rescaled: blocks whose scale was made anew, because edited numbers did not fit it.
    """

    error: float
    left: float
    kept: float = 1.0
    rescaled: int = 0


class Rounding:
    """A running account of the rounding errors of storing an edited tensor."""

    def __init__(self, edited: TensorWriter) -> None:
        self._source, self._target = edited.source, edited.target
        self._wanted = self._error = self._change = self._made = 0.0
        self._rescaled = 0
        self._along = self._left = None
        if edited.map is not None:
            self._along = Along(edited.source, edited.map.right, edited.along_rows, edited.gains)
            self._left = Along(edited.target, edited.map.right, edited.along_rows, constant=edited.map.constant)

    def add(self, strip: EditedStrip) -> None:
        """Add one stored strip."""
        rows = strip.last - strip.first
        self._rescaled += strip.rescaled
        for first, values in strip.tiles:
            end = first + values.shape[1]
            gap = self._target.decode(strip.stored, rows, first, end) - values
            self._error += dot(gap, gap)
            self._wanted += dot(values, values)
            # In memory of its own: the strip's numbers lie in what `scratch` would give.
            change = values - self._source.decode(strip.before, rows, first, end)
            size = dot(change, change)
            self._change += size
            self._made += size + dot(gap, change)
        if self._along is not None and self._left is not None:
            self._along.add(strip.before, strip.first, strip.last)
            self._left.add(strip.stored, strip.first, strip.last)

    @property
    def loss(self) -> RoundingLoss:
        """The rounding loss over all strips added so far."""
        error = math.sqrt(self._error / self._wanted) if self._wanted else 0.0
        kept = self._made / self._change if self._change else 1.0
        if self._along is None or self._left is None:
            return RoundingLoss(error, 0.0, kept, self._rescaled)
        reference = max(self._along.norm, self._along.expected)
        return RoundingLoss(error, self._left.norm / reference if reference else 0.0, kept, self._rescaled)
