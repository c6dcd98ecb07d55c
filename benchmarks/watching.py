"""Functions of the package wrapped from outside, to add up where each thread's time goes; the package knows nothing."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Spent:
    """Seconds on the clock, of these on the processor, and calls."""

    wall: float = 0.0
    processor: float = 0.0
    calls: int = 0


@dataclass
class Watch:
    """Time by thread and by kind of work; work inside other work counts for the inner kind alone.

    Attributes:
        spent: (thread's name, kind) -> time.
    """

    spent: dict[tuple[str, str], Spent] = field(default_factory=lambda: defaultdict(Spent))
    _own: threading.local = field(default_factory=threading.local)

    @contextmanager
    def doing(self, kind: str) -> Iterator[None]:
        """What is done in the block is of this kind."""
        outer = getattr(self._own, "inner", None)
        self._own.inner = inner = [0.0, 0.0]
        wall, processor = time.monotonic(), time.thread_time()
        try:
            yield
        finally:
            wall, processor = time.monotonic() - wall, time.thread_time() - processor
            found = self.spent[threading.current_thread().name, kind]
            found.wall += wall - inner[0]
            found.processor += processor - inner[1]
            found.calls += 1
            if outer is not None:
                outer[0] += wall
                outer[1] += processor
            self._own.inner = outer

    def wrap(self, owner: Any, name: str, kind: str) -> None:
        """Count the calls of a function or method as work of some kind."""
        function: Callable[..., Any] = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            with self.doing(kind):
                return function(*args, **options)

        setattr(owner, name, counted)
