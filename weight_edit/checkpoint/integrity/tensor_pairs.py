"""One pass over the files of two checkpoints, in fixed memory.

Digests are made in some threads, comparisons in others.

A walker goes through a file of the edited side from its first byte to its last, digests it and hands each piece to a
worker, who compares it with the base's bytes. Where a tensor is judged otherwise (an edited one by the formula), the
walker starts a job for it, so that the job finds the tensor's bytes still in memory.
"""

import hashlib
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from weight_edit.checkpoint.files import CHUNK
from weight_edit.checkpoint.source.reading import Files, processors
from weight_edit.checkpoint.tensor.nonfinite import count_non_finite
from weight_edit.checkpoint.tensor.storage import Bytes
from weight_edit.errors import WeightEditError
from weight_edit.utils.progress import Bar


@dataclass(frozen=True)
class Part:
    """A run of bytes of an edited side's file, with the checks to make on it.

    Attributes:
        size: the number of bytes; parts follow one another without gaps.
        like: the file and offset of the base's bytes that it must equal, or the bytes; None for no comparison.
        dtype: count its numbers that are not finite; None for no count.
        job: what else to do when the walk gets here, beside it. It moves the bar on over the part's bytes itself.
    """

    size: int
    like: tuple[str, int] | bytes | None = None
    dtype: str | None = None
    job: Callable[[], None] | None = None


@dataclass
class Walked:
    """The findings in one file.

    Attributes:
        sha256: of the whole file; None when no digests were asked for or the file could not be read.
        first_difference: number of a part -> the first of its bytes that differs from the base's.
        non_finite: number of a part -> how many of its numbers are NaN or infinite.
        problems: what stopped the reading.
    """

    sha256: str | None = None
    first_difference: dict[int, int] = field(default_factory=dict)
    non_finite: dict[int, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class Walk:
    """A pass over files of `edited`, compared with those of `base`."""

    def __init__(self, base: Files, edited: Files, *, digests: bool, progress: Bar) -> None:
        self._base, self._edited, self._digests, self._progress = base, edited, digests, progress
        self._workers = processors()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        # What bounds the memory: a walker waits for a free buffer, or for a place for one more job.
        self._buffers: queue.SimpleQueue[Bytes] = queue.SimpleQueue()
        self._jobs = threading.Semaphore(2 * self._workers)
        self._spare = threading.local()
        self._futures: list[Future[None]] = []

    def run(self, files: Mapping[str, Sequence[Part]]) -> dict[str, Walked]:
        """Walk through every file, each over its parts; several at a time.

        Raises:
            whatever a job raises.
        """
        found = {name: Walked() for name in files}
        walkers = max(1, self._workers // 2)
        for _ in range(2 * self._workers + walkers):
            self._buffers.put(np.empty(CHUNK, np.uint8))
        with ThreadPoolExecutor(self._workers) as workers, ThreadPoolExecutor(walkers) as walking:
            try:
                walks = [walking.submit(self._file, workers, name, parts, found[name]) for name, parts in files.items()]
                for walk in walks:
                    walk.result()
                for future in self._futures:
                    future.result()
            except BaseException:
                self._stop.set()
                walking.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _file(self, workers: ThreadPoolExecutor, name: str, parts: Sequence[Part], found: Walked) -> None:
        try:
            self._walk(workers, name, parts, found)
            self._edited.check_unchanged(name)
        except WeightEditError as error:
            with self._lock:
                found.problems.append(str(error))

    def _walk(self, workers: ThreadPoolExecutor, name: str, parts: Sequence[Part], found: Walked) -> None:
        digest = hashlib.sha256() if self._digests else None
        offset = 0
        for number, part in enumerate(parts):
            if part.job is not None:
                self._jobs.acquire()
                self._submit(workers, self._job, part.job)
            wanted = part.like is not None or part.dtype is not None
            for begin in range(0, part.size, CHUNK):
                size = min(CHUNK, part.size - begin)
                if self._stop.is_set():
                    return
                if wanted or digest is not None:
                    buffer = self._buffers.get()
                    lent = False
                    try:
                        piece = buffer[:size]
                        self._edited.read(name, offset + begin, piece)
                        if digest is not None:
                            digest.update(piece.data)
                        if wanted:
                            self._submit(
                                workers, self._piece, part, number, found, begin=begin, buffer=buffer, size=size
                            )
                            lent = True
                    finally:
                        if not lent:
                            self._buffers.put(buffer)
                if part.job is None:
                    self._progress.advance(size)
            offset += part.size
        if digest is not None:
            found.sha256 = digest.hexdigest()

    def _submit(
        self, workers: ThreadPoolExecutor, work: Callable[..., None], *arguments: object, **named: object
    ) -> None:
        future = workers.submit(work, *arguments, **named)
        with self._lock:
            # Those that went well need not be kept.
            self._futures = [known for known in self._futures if not known.done() or known.exception() is not None]
            self._futures.append(future)

    def _job(self, job: Callable[[], None]) -> None:
        try:
            if not self._stop.is_set():
                job()
        finally:
            self._jobs.release()

    def _piece(self, part: Part, number: int, found: Walked, *, begin: int, buffer: Bytes, size: int) -> None:
        try:
            if self._stop.is_set():
                return
            piece = buffer[:size]
            if part.dtype is not None:
                bad = count_non_finite(piece, part.dtype)
                if bad:
                    with self._lock:
                        found.non_finite[number] = found.non_finite.get(number, 0) + bad
            if part.like is not None:
                self._compare(part.like, number, begin, piece, found)
        except WeightEditError as error:
            with self._lock:
                if str(error) not in found.problems:
                    found.problems.append(str(error))
        finally:
            self._buffers.put(buffer)

    def _compare(self, like: tuple[str, int] | bytes, number: int, begin: int, piece: Bytes, found: Walked) -> None:
        if isinstance(like, bytes):
            theirs = np.frombuffer(like, np.uint8, len(piece), begin)
        else:
            if not hasattr(self._spare, "buffer"):
                self._spare.buffer = np.empty(CHUNK, np.uint8)
            theirs = self._spare.buffer[: len(piece)]
            self._base.read(like[0], like[1] + begin, theirs)
        first = first_difference(piece, theirs)
        if first is not None:
            with self._lock:
                found.first_difference[number] = min(begin + first, found.first_difference.get(number, begin + first))


def first_difference(left: Bytes, right: Bytes) -> int | None:
    """The index of the first byte that differs between equally long runs; None if equal."""
    whole = len(left) // 8 * 8
    if np.array_equal(left[:whole].view(np.uint64), right[:whole].view(np.uint64)) and np.array_equal(
        left[whole:], right[whole:]
    ):
        return None
    return int(np.flatnonzero(left != right)[0])
