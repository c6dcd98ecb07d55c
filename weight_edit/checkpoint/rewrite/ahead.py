"""Edited tensors of one file that are made before it is their turn, in threads that would have nothing to do."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from weight_edit.checkpoint.rewrite.layout import New, Piece
from weight_edit.checkpoint.tensor.storage import Bytes

MOST_AHEAD = 256 * 1024 * 1024
"""Bytes of all pieces that are held before they are written."""


class Ahead:
    """Edited pieces of one file, made ahead of the piece that is written: those of quantised formats.

    Others take no longer to make than to hash. It is a context; at its end no thread of it works any more. Errors of a
    piece come when that is taken.

    Args:
        make: the bytes of a piece as a whole; called from several threads.
        pieces: of the file, in the order in which they are written.
        threads: how many pieces are made at the same time; with 0 none is.
    """

    def __init__(self, make: Callable[[New], Bytes], pieces: Sequence[Piece], threads: int) -> None:
        self._make, self._pieces, self._threads = make, pieces, threads
        self._made: dict[int, Future[Bytes]] = {}
        self._next = self._held = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="ahead") if threads else None

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def taken(self, number: int) -> Bytes | None:
        """The bytes of a piece, whose turn it is; None where they were not made ahead.

        Others behind it are begun.
        """
        self._begin_behind(number)
        made = self._made.pop(number, None)
        if made is None:
            return None
        self._held -= self._pieces[number].size
        return made.result()

    def _begin_behind(self, number: int) -> None:
        """Begin pieces behind a piece, as many as there are threads and memory for."""
        if self._pool is None:
            return
        self._next = max(self._next, number + 1)
        while self._next < len(self._pieces) and len(self._made) < self._threads + (number in self._made):
            piece = self._pieces[self._next]
            if isinstance(piece, New) and piece.edited.target.lossy:
                if self._held + piece.size > MOST_AHEAD:
                    return
                self._held += piece.size
                self._made[self._next] = self._pool.submit(self._make, piece)
            self._next += 1
