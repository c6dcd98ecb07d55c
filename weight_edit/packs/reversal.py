"""The way back, recorded: of which pieces of the edited checkpoint, and of the pack, each file of the base is made."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from weight_edit.baking.prepare import PreparedEdit
from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.manifest import MANIFEST, FileRecord
from weight_edit.checkpoint.quantized.formats import parameter_in, storage_of
from weight_edit.checkpoint.quantized.values import stored_tensors
from weight_edit.checkpoint.rewrite.layout import Copy, New, RewritePlan
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.reading import Files
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Bytes, Matrix, Storage
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.packs.compression import compressed, framed
from weight_edit.packs.corrections import ByteCorrections
from weight_edit.packs.prediction import Factors, Floats, as_planes, coarse, inverse
from weight_edit.packs.restored import MOST_SUMS, TOGETHER, Guess
from weight_edit.utils.arrays import norm_restoring_factors
from weight_edit.utils.progress import Bar, bar

_MOST_LITERAL = 1 << 26
_CHUNK = 4 * 1024 * 1024


@dataclass(frozen=True)
class _Range:
    """Bytes of a base's file that the edited checkpoint has, or that an edited tensor is the guess of."""

    begin: int
    end: int
    copied: tuple[str, int] | None = None
    edited: tuple[EditedTensor, str] | None = None


@dataclass(kw_only=True)
class ReversalRecord:
    """A reversal under construction.

    Attributes:
        spool: where the bytes of the tensor `reversal` go.
        files, tensors, factors: see `document`.
        digests: SHA-256 of the base's own bytes of each of the tensors, to hold a written pack to.
    """

    base: PreparedEdit
    edited: Checkpoint
    spool: BinaryIO
    files: list[dict[str, Any]] = field(default_factory=list)
    tensors: list[dict[str, Any]] = field(default_factory=list)
    factors: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The JSON of the reversal.

        `files` has each file's name and pieces: ["copy", file, begin, size] of the edited checkpoint, ["bytes", at,
        length, size] of the tensor `reversal`, or ["tensor", number]. `tensors` has these: name, size, where its
        payloads are, and of one that is guessed its axis, the number of its factors and whether lengths were kept.
        `factors` has where they are, and their width and rank.
        """
        return {"files": self.files, "tensors": self.tensors, "factors": self.factors}

    def record(self) -> dict[str, FileRecord]:
        """Record everything; returns the base's files, each read once here.

        Raises:
            UnsupportedError: an edit that changes formats.
            UsageError: files that are not those of the base, or that cannot be read.
        """
        for edit in self.base.tensors.edits:
            if not isinstance(edit, EditedTensor) or dict(edit.target.parts) != dict(edit.source.parts):
                raise UnsupportedError(
                    f"tensor {printable(edit.source.name)!r} is stored in another format than the base's "
                    "(`dequantize=True`), so that a pack would have to hold the base's; leave `reversible=True` out",
                    option=("dequantize", "reversible"),
                )
        source = self.base.checkpoint
        ranges = _inverted(self.base.rewrite_plan())
        names = (*source.files, *((MANIFEST,) if (source.path / MANIFEST).is_file() and not source.gguf else ()))
        records = {}
        with (
            Files(source) as theirs,
            Files(self.edited) as ours,
            bar("recording the way back", source.size, unit="bytes") as progress,
        ):
            self._tensors_of(ranges, theirs, ours, progress)
            for name in names:
                digest = hashlib.sha256()
                size = theirs.size(name)
                pieces = []
                for part in _complete(ranges.get(name, []), size):
                    pieces.append(self._piece(name, part, theirs, ours))
                    for raw in _read(theirs, name, part.begin, part.end):
                        digest.update(raw)
                        progress.advance(len(raw) if part.edited is None else 0)
                self.files.append({"name": name, "pieces": pieces})
                records[name] = FileRecord(digest.hexdigest(), size, "copied")
        return records

    def _piece(self, name: str, part: _Range, theirs: Files, ours: Files) -> list[Any]:
        if part.edited is not None:
            return ["tensor", self._numbers[part.edited[1]]]
        size = part.end - part.begin
        if part.copied is not None:
            file, begin = part.copied
            both = (_read(theirs, name, part.begin, part.end), _read(ours, file, begin, begin + size))
            if any(before != after for before, after in zip(*both, strict=True)):
                raise UsageError(
                    f"{printable(file)} of the edited checkpoint is not made of this base's {printable(name)}; give "
                    "the base that was edited",
                    option="base",
                )
            return ["copy", file, begin, size]
        if size > _MOST_LITERAL:
            raise UnsupportedError(
                f"{printable(name)}: {size} bytes of the base have no counterpart in the edited checkpoint, which is "
                "too much for a pack; leave `reversible=True` out",
                option="reversible",
            )
        raw = b"".join(_read(theirs, name, part.begin, part.end))
        at, length = self._append(compressed(raw))
        return ["bytes", at, length, size]

    def _append(self, raw: bytes) -> tuple[int, int]:
        at = self.spool.tell()
        self.spool.write(raw)
        return at, len(raw)

    def _tensors_of(self, ranges: Mapping[str, list[_Range]], theirs: Files, ours: Files, progress: Bar) -> None:
        self._numbers: dict[str, int] = {}
        self._known: list[tuple[EditedTensor, int]] = []
        for found in ranges.values():
            for part in found:
                if part.edited is None:
                    continue
                edit, name = part.edited
                said: dict[str, Any] = {"name": name, "size": part.end - part.begin}
                if name == edit.source.name and edit.map is not None:
                    storage, axis = _on_edited(self.edited, name, edit)
                    number, factors = self._factors(edit)
                    guess = Guess(
                        storage=storage, along_rows=edit.along_rows, factors=factors, keeps_lengths=edit.keep_norms
                    )
                    said |= {"axis": axis, "factors": number, "lengths": edit.keep_norms}
                    if guess.longest_removed > MOST_SUMS:
                        raise UnsupportedError(
                            f"tensor {printable(name)!r}: {guess.longest_removed} bytes were removed from one matrix, "
                            f"and a pack has at most {MOST_SUMS}; leave `reversible=True` out",
                            option="reversible",
                        )
                    payloads = _guessed(edit, guess, theirs, ours)
                else:
                    payloads = _as_it_is(name, part.end - part.begin, theirs, ours)
                begin = self.spool.tell()
                digest = hashlib.sha256()
                for payload, wanted in payloads:
                    self.spool.write(framed(payload))
                    digest.update(wanted.data)
                    progress.advance(len(wanted))
                self.digests[name] = digest.hexdigest()
                self._numbers[name] = len(self.tensors)
                self.tensors.append({**said, "at": begin, "length": self.spool.tell() - begin})

    def _factors(self, edit: EditedTensor) -> tuple[int, Factors]:
        """The number and the factors of an edit's map; those of one map with the same gains are stored once."""
        assert edit.map is not None
        gains = None if edit.gains is None else inverse(edit.gains)
        found = Factors(left=edit.map.left, constant=edit.map.constant, inverse_gains=gains)
        for known, number in self._known:
            if _same(known, edit):
                return number, found
        stored = [found.left, *(each[:, None] for each in (found.constant, found.inverse_gains) if each is not None)]
        at, length = self._append(compressed(as_planes(np.concatenate(stored, axis=1), 8)))
        entry = {"at": at, "length": length, "width": found.width, "rank": found.rank}
        entry |= {"constant": found.constant is not None, "gains": gains is not None}
        self._known.append((edit, len(self.factors)))
        self.factors.append(entry)
        return len(self.factors) - 1, found


def _same(a: EditedTensor, b: EditedTensor) -> bool:
    assert a.map is not None
    assert b.map is not None
    pairs = ((a.map.left, b.map.left), (a.map.constant, b.map.constant), (a.gains, b.gains))
    return all(x is y or (x is not None and y is not None and np.array_equal(x, y)) for x, y in pairs)


def _inverted(plan: RewritePlan) -> dict[str, list[_Range]]:
    """Of each base's file, the ranges that pieces of the output were made of, copies first."""
    found: dict[str, list[_Range]] = {}
    for file in plan.files:
        at = 0
        for piece in file.pieces:
            if isinstance(piece, Copy):
                part = _Range(piece.begin, piece.begin + piece.size, copied=(file.name, at))
                found.setdefault(piece.file, []).append(part)
            elif (
                isinstance(piece, New) and isinstance(piece.edited, EditedTensor) and piece.part in plan.source.tensors
            ):
                info = plan.source.info(piece.part)
                found.setdefault(info.shard, []).append(_Range(info.begin, info.end, edited=(piece.edited, piece.part)))
            at += piece.size
    return {name: list(_apart(sorted(ranges, key=_order))) for name, ranges in found.items()}


def _order(part: _Range) -> tuple[int, bool, int]:
    return part.begin, part.copied is None, -part.end


def _apart(ranges: list[_Range]) -> Iterator[_Range]:
    """The ranges without those that lie in others, and without the parts of copies that do."""
    done = 0
    for part in ranges:
        if part.end <= done or part.begin == part.end:
            continue
        if part.begin < done:
            if part.copied is None:
                continue
            file, at = part.copied
            part = _Range(done, part.end, copied=(file, at + done - part.begin))
        yield part
        done = part.end


def _complete(ranges: list[_Range], size: int) -> Iterator[_Range]:
    """The ranges with what is between them."""
    done = 0
    for part in ranges:
        if part.begin > done:
            yield _Range(done, part.begin)
        yield part
        done = part.end
    if done < size:
        yield _Range(done, size)


def _read(files: Files, name: str, begin: int, end: int) -> Iterator[bytes]:
    while begin < end:
        raw = np.empty(min(_CHUNK, end - begin), np.uint8)
        files.read(name, begin, raw)
        yield raw.tobytes()
        begin += raw.size


def _on_edited(edited: Checkpoint, name: str, edit: EditedTensor) -> tuple[Storage, int]:
    """The storage of a tensor of the edited checkpoint and the axis of its vectors, as the edit has them."""
    wanted = edit.source
    for axis in reversed(range(len(wanted.shape))):
        try:
            found = guessed_storage(edited, name, axis)
        except (UnsupportedError, ValueError):
            # Some formats are edited along their last two axes only.
            continue
        same = (found.slabs, found.rows, found.cols) == (wanted.slabs, wanted.rows, wanted.cols)
        if same and Matrix.of(found.shape, axis).along_rows == edit.along_rows:
            return found, axis
    raise UnsupportedError(
        f"tensor {printable(name)!r} lies otherwise in the edited checkpoint than in the base; leave `reversible=True` "
        "out",
        option="reversible",
    )


def guessed_storage(edited: Checkpoint, name: str, axis: int) -> Storage:
    """The storage of a tensor of an edited checkpoint that is guessed from.

    Args:
        name: of the tensor that has the numbers or the codes.

    Raises:
        UsageError, UnsupportedError: as `storage_of`.
    """
    stored = stored_tensors(edited)
    parameter = parameter_in(edited.info(name), stored) or name
    return storage_of(parameter, stored.tensors, stored.config, axis, stored.read)


def _guessed(edit: EditedTensor, guess: Guess, theirs: Files, ours: Files) -> Iterator[tuple[bytes, Bytes]]:
    """The payloads of a guessed tensor, each with the base's bytes that it stands for."""
    storage, corrections = guess.storage, guess.corrections
    for slab in range(storage.slabs):
        whole = None
        if guess.along_rows:
            raw = _taken(_columns(edit, theirs, slab), guess)
            yield raw, np.empty(0, np.uint8)
            whole = guess.removed(raw)
        for first, last in storage.strips(TOGETHER):
            before = edit.source.load(theirs.tensor, slab, first, last)
            after = storage.load(ours.tensor, slab, first, last)
            raw = b""
            if whole is None:
                raw = _taken(_rows(edit, _decoded(edit.source, before, last - first)), guess)
            removed = guess.removed(raw) if whole is None else whole
            found, scale = guess.strip(after, removed, first, last)
            wanted = before[storage.name]
            yield raw + corrections.found(wanted, found, after[storage.name], scale), wanted


def _as_it_is(name: str, size: int, theirs: Files, ours: Files) -> Iterator[tuple[bytes, Bytes]]:
    for begin in range(0, size, TOGETHER):
        before, after = (np.empty(min(TOGETHER, size - begin), np.uint8) for _ in range(2))
        theirs.tensor(name, begin, before)
        ours.tensor(name, begin, after)
        yield ByteCorrections().found(before, after, after, None), before


def _decoded(storage: Storage, strip: Mapping[str, Bytes], rows: int) -> Floats:
    values = np.empty((rows, storage.cols))
    for begin, end in storage.tiles():
        values[:, begin:end] = storage.decode(strip, rows, begin, end)
    return values


def _rows(edit: EditedTensor, values: Floats) -> tuple[Floats, Floats | None]:
    """What the edit takes from rows, and 1 / f of each where lengths are kept."""
    assert edit.map is not None
    values = values if edit.gains is None else values * edit.gains
    sums = edit.map.right.T @ values.T
    if not edit.keep_norms:
        return sums, None
    after = values - (edit.map.left @ sums).T
    lengths = (np.sqrt(np.square(each).sum(axis=1)) for each in (values, after))
    return sums, inverse(norm_restoring_factors(*lengths))


def _columns(edit: EditedTensor, theirs: Files, slab: int) -> tuple[Floats, Floats | None]:
    """The same of the columns of one matrix, which is read once, or twice where lengths are kept."""
    assert edit.map is not None
    source, stream_map = edit.source, edit.map
    sums = np.zeros((stream_map.right.shape[1], source.cols))

    def strips() -> Iterator[tuple[slice, Floats]]:
        for first, last in source.strips(TOGETHER):
            values = _decoded(source, source.load(theirs.tensor, slab, first, last), last - first)
            yield slice(first, last), values if edit.gains is None else values * edit.gains[first:last, None]

    for rows, values in strips():
        sums += stream_map.right[rows].T @ values
    if not edit.keep_norms:
        return sums, None
    before, after = np.zeros((2, source.cols))
    for rows, values in strips():
        before += np.square(values).sum(axis=0)
        after += np.square(values - stream_map.left[rows] @ sums).sum(axis=0)
    return sums, inverse(norm_restoring_factors(np.sqrt(before), np.sqrt(after)))


def _taken(found: tuple[Floats, Floats | None], guess: Guess) -> bytes:
    sums, lengths = found
    rows = [coarse(sums, guess.item), *(() if lengths is None else (lengths[None],))]
    return as_planes(np.concatenate(rows), guess.item)
