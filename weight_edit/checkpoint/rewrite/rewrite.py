"""The execution of a rewrite plan: files read, edited, hashed and written, in fixed memory."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path, PurePosixPath
from queue import Empty, SimpleQueue

import numpy as np
from threadpoolctl import threadpool_limits

from weight_edit.checkpoint.files import locate, printable
from weight_edit.checkpoint.manifest import FileRecord
from weight_edit.checkpoint.rewrite.ahead import Ahead
from weight_edit.checkpoint.rewrite.lane import Begun, Lane, LaneFile
from weight_edit.checkpoint.rewrite.layout import Copy, FilePlan, Literal, New, Piece, RewritePlan
from weight_edit.checkpoint.rewrite.links import clone, link
from weight_edit.checkpoint.source.reading import Files, processors
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding, RoundingLoss
from weight_edit.checkpoint.tensor.nonfinite import Census
from weight_edit.checkpoint.tensor.scratch import keep_freed_memory, scratch
from weight_edit.checkpoint.tensor.storage import Bytes
from weight_edit.errors import UsageError
from weight_edit.utils.progress import Bar, bar

MOST_LANES = 4

_WORTH_A_CLONE = 1 << 20

NOTED_EVERY = 64 * 1024 * 1024
"""The bytes of a file after which its beginning is noted, at the next end of a piece, so that a resumed rewrite goes on
there: edited numbers take up to half a minute for so many."""

Done = Callable[[str, FileRecord, Mapping[str, RoundingLoss]], None]
"""Called with each finished file's name and record, and its tensors' rounding losses."""

NoteBegun = Callable[[str, int, str, Mapping[str, RoundingLoss]], None]
"""Called with a file's name, the bytes of it that are on disk, their SHA-256, and its tensors' rounding losses."""


@dataclass(frozen=True, kw_only=True)
class RewriteResult:
    """The files, tensors and byte counts of a finished rewrite.

    Attributes:
        files: relative path -> digest, size and origin, for every file of the output.
        edited, added, removed: names of tensors.
        other_weights: copied weight files that transformers does not load and that no edit reached.
        skipped: folders of the source that belong to tools and were not copied.
        losses: edited tensors of quantised formats -> what their rounding did.
        nonfinite: copied tensors that have NaN or infinite values -> how many; those of files that were there already
            are not among them.
        bytes_read: from the source; edited tensors may be read twice.
        bytes_copied, bytes_edited: of the output: the source's, and those of edited and added tensors and of JSON.
        bytes_linked: of the output, but shared with the source (hard links, or clones of the file system's).
        bytes_kept: of the output, from an earlier, interrupted rewrite.
        seconds: wall time.
    """

    files: Mapping[str, FileRecord]
    edited: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    other_weights: tuple[str, ...]
    skipped: tuple[str, ...]
    losses: Mapping[str, RoundingLoss]
    nonfinite: Mapping[str, int]
    bytes_read: int
    bytes_copied: int
    bytes_edited: int
    bytes_linked: int
    bytes_kept: int
    seconds: float


def write_checkpoint(
    plan: RewritePlan,
    out: Path,
    *,
    finished: Mapping[str, FileRecord] | None = None,
    begun: Mapping[str, Begun] | None = None,
    losses: Mapping[str, RoundingLoss] | None = None,
    done: Done | None = None,
    note_begun: NoteBegun | None = None,
    linked: bool = False,
    lanes: int | None = None,
    allow_nonfinite: bool = False,
) -> RewriteResult:
    """Write the files of a plan into the folder `out`.

    Args:
        out: an existing folder (see `output.staged`) that has the finished and the begun files and no others.
        finished: files that are there already.
        begun: files of which the beginning is there.
        losses: what is known of the tensors in them.
        done: told of each further file, from any thread.
        note_begun: told from time to time how much of a long file is on disk, from any thread.
        linked: make hard links of whole untouched files, on the same file system.
        allow_nonfinite: copy tensors that have NaN or infinite values; else they are refused. Of an edited tensor they
            always are: the edit would spread them.
        lanes: files written at the same time; by the number of processors when None. The bytes do not depend on it.

    Raises:
        UsageError: non-finite values in a tensor, or in an edited one after the edit; a source that changes meanwhile.
        OSError: the disk is full, and so on.
    """
    began = time.monotonic()
    keep_freed_memory()
    finished, begun = finished or {}, _usable(begun or {}, plan, out)
    todo = [file for file in plan.files if file.name not in finished]
    # With shards that come and go, one at a time: the disk may have no room for two.
    count = 1 if plan.source.comes_and_goes else lanes or min(MOST_LANES, processors())
    kept = sum(record.size for record in finished.values()) + sum(each.size for each in begun.values())
    # One thread each: the lanes share the processors, and a sum split among threads would be another sum.
    with (
        threadpool_limits(1, user_api="blas"),
        bar("writing", plan.size, "bytes", done=kept) as progress,
        Files(plan.source) as source,
    ):
        job = _Rewrite(plan, out, source, progress, linked=linked, done=done, allow_nonfinite=allow_nonfinite)
        job.begun, job.note_begun, job.losses = begun, note_begun, dict(losses or {})
        job.threads_ahead = _threads_ahead(todo, count)
        job.run(todo, count)
    files = {**finished, **job.records}
    return RewriteResult(
        files={name: files[name] for name in sorted(files)},
        edited=plan.edited,
        added=plan.added,
        removed=plan.removed,
        other_weights=plan.other_weights,
        skipped=plan.source.skipped,
        losses=dict(sorted(job.losses.items())),
        nonfinite=dict(sorted(job.nonfinite.items())),
        bytes_read=source.bytes_read,
        bytes_copied=job.counts.copied,
        bytes_edited=job.counts.edited,
        bytes_linked=job.counts.linked,
        bytes_kept=kept,
        seconds=time.monotonic() - began,
    )


def _usable(begun: Mapping[str, Begun], plan: RewritePlan, out: Path) -> dict[str, Begun]:
    """The beginnings of files that end where a piece does, as all do that were written here; others are removed."""
    ends = {
        file.name: set(accumulate(piece.size for piece in file.pieces)) for file in plan.files if file.name in begun
    }
    usable = {name: each for name, each in begun.items() if each.size in ends.get(name, ())}
    for name in begun.keys() - usable:
        (out / PurePosixPath(name)).unlink()
    return usable


def _threads_ahead(todo: list[FilePlan], lanes: int) -> int:
    """The threads for each edited file beside its lane, where such files are fewer than lanes: one GGUF file, say."""
    edited = sum(any(isinstance(piece, New) for piece in file.pieces) for file in todo)
    return max(0, lanes - edited) // edited if edited else 0


class Stopped(Exception):
    """Raised to end a lane after another lane failed."""


@dataclass
class _Counts:
    copied: int = 0
    edited: int = 0
    linked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, **more: int) -> None:
        with self.lock:
            for name, count in more.items():
                setattr(self, name, getattr(self, name) + count)


class _Rewrite:
    """A running rewrite, shared by its lanes."""

    def __init__(
        self,
        plan: RewritePlan,
        out: Path,
        source: Files,
        progress: Bar,
        *,
        linked: bool,
        done: Done | None,
        allow_nonfinite: bool,
    ) -> None:
        self.plan, self.out, self.linked, self.done, self.progress = plan, out, linked, done, progress
        self.allow_nonfinite = allow_nonfinite
        self.nonfinite: dict[str, int] = {}
        self._files = source
        self.counts = _Counts()
        self.records: dict[str, FileRecord] = {}
        self.losses: dict[str, RoundingLoss] = {}
        self.begun: Mapping[str, Begun] = {}
        self.note_begun: NoteBegun | None = None
        self.threads_ahead = 0
        self._stop = threading.Event()
        self._clones = True
        self._needed: Counter[str] = Counter()
        self._reads: dict[str, frozenset[str]] = {}
        self._lock = threading.Lock()

    def run(self, todo: list[FilePlan], lanes: int) -> None:
        """Write all files; the first error stops every lane."""
        queue: SimpleQueue[FilePlan] = SimpleQueue()
        for file in todo:
            self._reads[file.name] = file.reads(self.plan.source)
            self._needed.update(self._reads[file.name])
        for file in self._ordered(todo):
            queue.put(file)
        pool = ThreadPoolExecutor(max(1, min(lanes, len(todo))), thread_name_prefix="lane")
        works: list[Future[None]] = []
        try:
            works += [pool.submit(self._lane, queue) for _ in range(min(lanes, len(todo)))]
            wait(works, return_when=FIRST_EXCEPTION)
        finally:
            self._stop.set()
            _join(pool)
        errors = [error for work in works if (error := work.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error

    def _ordered(self, todo: list[FilePlan]) -> list[FilePlan]:
        source = self.plan.source
        if not source.comes_and_goes:
            # The longest first, so that no lane is left with one while the others have nothing to do.
            return sorted(todo, key=lambda file: -file.size)
        # By the shards that they are made from, so that few of them are needed at a time.
        place = {shard: number for number, shard in enumerate(source.shards)}
        return sorted(todo, key=lambda file: max((place.get(name, -1) for name in self._reads[file.name]), default=-1))

    def _lane(self, queue: "SimpleQueue[FilePlan]") -> None:
        with Lane() as lane:
            while not self._stop.is_set():
                try:
                    file = queue.get_nowait()
                except Empty:
                    break
                self._file(lane, file)

    def _file(self, lane: Lane, file: FilePlan) -> None:
        source, reads = self.plan.source, sorted(self._reads[file.name])
        for name in reads:
            if name in source.headers:
                source.fetch(name)
        record = self._shared(lane, file) or self._written(lane, file)
        self.records[file.name] = record
        if self.done is not None:
            self.done(file.name, record, self._losses_of(file))
        with self._lock:
            self._needed.subtract(reads)
            finished = [name for name in reads if not self._needed[name]]
        for name in finished:
            self._files.close(name)
            if name in source.headers:
                source.drop(name)

    def _losses_of(self, file: FilePlan) -> dict[str, RoundingLoss]:
        parts = {piece.part for piece in file.pieces if isinstance(piece, New)}
        return {part: self.losses[part] for part in parts & self.losses.keys()}

    def _shared(self, lane: Lane, file: FilePlan) -> FileRecord | None:
        """The record of a linked or cloned file, hashed from the source; None if it must be copied."""
        if file.copy_of is None or (file.size < _WORTH_A_CLONE and not self.linked):
            return None
        if self.linked:
            link(locate(self.plan.source.path, file.copy_of), self.out, file.name)
        elif not self._clones or not clone(self._files.open(file.copy_of), self.out, file.name):
            self._clones = False
            return None
        with LaneFile(lane, None, file.size) as target:
            self._copy(target, Copy(file.copy_of, 0, file.size))
            self._files.check_unchanged(file.copy_of)
            self.counts.add(copied=-file.size, linked=file.size)
            return target.finish("linked" if self.linked else "copied")

    def _written(self, lane: Lane, file: FilePlan) -> FileRecord:
        begun = self.begun.get(file.name)
        with LaneFile(lane, self.out / PurePosixPath(file.name), file.size, begun) as target:
            self._pieces(target, file)
            for name in self._reads[file.name]:
                self._files.check_unchanged(name)
            self._check_stop()
            return target.finish(file.origin)

    def _pieces(self, target: LaneFile, file: FilePlan) -> None:
        """Write the pieces of a file that are not there yet."""
        noted = kept = target.size
        ends = accumulate(piece.size for piece in file.pieces)
        todo = [(piece, end) for piece, end in zip(file.pieces, ends, strict=True) if end > kept]
        with Ahead(self._made, [piece for piece, _ in todo], self.threads_ahead) as ahead:
            try:
                for number, (piece, end) in enumerate(todo):
                    self._piece(target, piece, ahead.taken(number))
                    if self.note_begun is not None and noted + NOTED_EVERY <= end < file.size:
                        self.note_begun(file.name, end, target.settle(), self._losses_of(file))
                        noted = end
            except BaseException:
                # Nobody waits for what was begun.
                self._stop.set()
                raise

    def _piece(self, target: LaneFile, piece: Piece, made: Bytes | None) -> None:
        if isinstance(piece, Copy):
            self._copy(target, piece)
            return
        before = target.size
        if isinstance(piece, Literal):
            target.write(memoryview(piece.data))
        elif made is not None:
            target.write(made.data)
        else:
            for block in self._blocks(piece):
                target.write(block.data)
        if target.size - before != piece.size:
            raise ValueError(f"{piece} gave {target.size - before} bytes, not {piece.size}")
        self.counts.add(edited=piece.size)

    def _blocks(self, piece: New) -> Iterator[Bytes]:
        """The bytes of an edited tensor's part, each good until the next; its rounding is noted at the end."""
        edited = piece.edited
        counted = isinstance(edited, EditedTensor) and edited.target.lossy and piece.part == edited.target.name
        rounding = Rounding(edited) if counted else None
        for block in edited.blocks(piece.part, self._files.tensor, rounding, scratch):
            self._check_stop()
            yield block
            self.progress.advance(block.size)
        if rounding is not None:
            self.losses[piece.part] = rounding.loss

    def _made(self, piece: New) -> Bytes:
        """The bytes of an edited tensor's part as a whole."""
        whole, done = np.empty(piece.size, np.uint8), 0
        for block in self._blocks(piece):
            whole[done : done + block.size] = block
            done += block.size
        return whole[:done]

    def _copy(self, target: LaneFile, piece: Copy) -> None:
        done = 0
        header = self.plan.source.headers.get(piece.file)
        census = None if header is None else Census(header.tensors, piece.begin)
        while done < piece.size:
            self._check_stop()
            room = target.room()[: piece.size - done]
            self._files.read(piece.file, piece.begin + done, room)
            if census is not None:
                census.see(np.frombuffer(room, np.uint8))
                self._judge(census.found)
            target.filled(len(room))
            done += len(room)
            self.progress.advance(len(room))
        if census is not None:
            self.nonfinite |= census.found
        self.counts.add(copied=piece.size)

    def _judge(self, nonfinite: Mapping[str, int]) -> None:
        """Refuse a damaged source at once, before more of it is copied."""
        if nonfinite and not self.allow_nonfinite:
            name = next(iter(nonfinite))
            raise UsageError(
                f"tensor {printable(name)!r} has NaN or infinite values, though no edit touches it; "
                "the source is damaged, "
                "fetch it again (`allow_nonfinite=True` copies it as it is)",
                option="allow_nonfinite",
            )

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped


def _join(pool: ThreadPoolExecutor) -> None:
    """Wait for all lanes, even if Ctrl-C is pressed again.

    They write into a folder that is removed after this.
    """
    pressed: BaseException | None = None
    while True:
        try:
            pool.shutdown()
            break
        except (KeyboardInterrupt, SystemExit) as again:
            pressed = again
    if pressed is not None:
        raise pressed
