"""Signs of life of whoever works on a unit of a journal, and how another machine reads them."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

EVERY = 10.0
"""Seconds between two signs of life."""

STALE = 60.0
"""Seconds without a sign of life after which a unit is taken over."""


class Heartbeat:
    """A thread that gives signs of life within a `with` block.

    Args:
        beat: gives the sign with this number, from 1; returns whether to go on.
        after: called by the thread at its end.
    """

    def __init__(self, beat: Callable[[int], bool], after: Callable[[], None]) -> None:
        self._beat, self._after = beat, after
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="heartbeat")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        try:
            while not self._stop.wait(EVERY):
                number += 1
                if not self._beat(number):
                    return
        finally:
            if number:
                self._after()


@dataclass
class Watch:
    """The signs of life of others, timed by this process's own clock: clocks of other machines may be wrong.

    Attributes:
        clock: seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _seen: dict[int, tuple[Any, float]] = field(default_factory=dict, init=False)

    def is_stale(self, number: int, sign: Any) -> bool:
        """Whether a trial's last sign of life has stayed the same for `STALE` seconds since it was first seen."""
        now = self.clock()
        earlier, since = self._seen.get(number, (None, now))
        if earlier != sign:
            since = now
        self._seen[number] = (sign, since)
        return now - since >= STALE
