"""Progress of long work, on stderr only, so that stdout stays one JSON document.

On a terminal it is a bar from the first moment on. Elsewhere (nohup, Slurm, CI) it is plain lines: the first at once,
then one every `EVERY` seconds with the count, the rate and the time left, and ever fewer while the count stands still.
Rate and time left are those of the last minutes, so that they follow a machine that slows down. Where somebody listens
(`progress_events`), all of it goes there instead.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from weight_edit.utils.notebook import in_notebook, notebook_bar
from weight_edit.utils.progress_events import emit, is_heard, reported
from weight_edit.utils.watch import watched

if TYPE_CHECKING:
    from rich.console import Console

EVERY = 15.0
"""Seconds between two lines of one task if stderr is no terminal."""

_TICK = 0.5
"""Seconds between two checks of whether a line is due."""

_STILL = 300.0
"""Seconds between two lines, at most, while the count stands still."""

_RECENT, _MOST_RECENT = 60.0, 600.0
"""Seconds that a rate is measured over: a tenth of the task's time within these bounds."""

_TOLD = 1 / 200
"""The share of the work, or a unit where that is less, before which a rate says nothing yet: the first is slow."""

_STEPS = 3
"""Steps that a rate is measured over at least, however long they take."""


class Bar(Protocol):
    """A running bar: `advance(n)` adds n units, `say(line)` prints a line above it."""

    def advance(self, n: float = 1) -> None: ...

    def say(self, line: str) -> None: ...


@dataclass(kw_only=True)
class Meter:
    """The progress of one task, advanced by several threads.

    Attributes:
        total: units of work; None where it cannot be told.
        unit: "bytes", or what is counted.
        count: units done, in parts where a unit takes long.
        first: units that were done when it began, of an earlier attempt: they say nothing about the rate.
        clock: seconds.
    """

    total: float | None
    unit: str = ""
    first: float = 0
    clock: Callable[[], float] = time.monotonic
    count: float = field(init=False)
    _began: float = field(init=False)
    _marks: deque[tuple[float, float]] = field(init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self.count = self.first
        self._began = self.clock()
        # Times with the count at them, at most one a second: what the recent rate is read off.
        self._marks = deque([(self._began, self.first)])

    def advance(self, n: float = 1) -> None:
        """Advance by n units."""
        with self._lock:
            self.count += n
            now = self.clock()
            if len(self._marks) > 2 and now - self._marks[-2][0] < 1:
                self._marks[-1] = (now, self.count)
            else:
                self._marks.append((now, self.count))
            while len(self._marks) > _STEPS + 1 and self._marks[1][0] <= now - self._window:
                self._marks.popleft()

    @property
    def seconds(self) -> float:
        """The seconds since the task began."""
        return self.clock() - self._began

    @property
    def mean(self) -> float | None:
        """The units per second since the task began; None before the first unit."""
        done = self.count - self.first
        return done / self.seconds if done > 0 and self.seconds > 0 else None

    @property
    def rate(self) -> float | None:
        """The units per second of late, a wait for the next unit included; None while too little is done to tell.

        Over the last minute, or a tenth of the task's time up to ten minutes, and over three steps at least. Where
        nothing was gained in that time, it is the mean since the task began.
        """
        now = self.clock()
        with self._lock:
            marks, count = list(self._marks), self.count
        if self.total is not None and count - self.first < min(1.0, self.total * _TOLD):
            return None
        within = sum(at > now - self._window for at, _ in marks)
        began, first = marks[max(0, len(marks) - 1 - max(within, _STEPS))]
        return (count - first) / (now - began) if count > first and now > began else self.mean

    @property
    def _window(self) -> float:
        return min(_MOST_RECENT, max(_RECENT, self.seconds / 10))

    @property
    def left(self) -> float | None:
        """The estimated seconds left; None if unknown."""
        rate = self.rate
        if self.total is None or rate is None:
            return None
        return max(0.0, self.total - self.count) / rate

    def __str__(self) -> str:
        """Count, rate and time left: "12 of 96, 2.3 s each, about 3 min left"."""
        if self.total is None:
            return "" if self.seconds < 1 else f"{duration(self.seconds)} so far"
        parts = [self.counted]
        if self.complete:
            mean = self.mean if self.unit else None
            return f"{parts[0]}, in {duration(self.seconds)}" + ("" if mean is None else f", {self._pace(mean)}")
        if self.rate is not None and self.left is not None:
            parts += [self.pace, f"about {duration(self.left)} left"]
        elif self.seconds >= 1:
            parts.append(f"{duration(self.seconds)} so far")
        return ", ".join(parts)

    @property
    def complete(self) -> bool:
        """Whether all units are done, up to rounding of fractions of units."""
        return self.total is not None and self.count >= self.total - 1e-6

    @property
    def counted(self) -> str:
        """The count, with the total if known."""
        if self.total is None:
            return self._amount(self.count)
        # What is nearly done is not done: a candidate counts when all of its prompts have passed.
        return f"{self._amount(self.count)} of {self._amount(self.total)}"

    @property
    def pace(self) -> str:
        """The rate in words: units per second, or seconds per unit for slow tasks without a name for the unit."""
        rate = self.rate
        return "" if rate is None else self._pace(rate)

    def _pace(self, rate: float) -> str:
        if self.unit == "bytes":
            return f"{_size(rate)}/s"
        if self.unit:
            return f"{rate:.3g} {self.unit}/s"
        return f"{rate:.3g}/s" if rate >= 1 else f"{duration(1 / rate)} each"

    def _amount(self, count: float) -> str:
        return _size(count) if self.unit == "bytes" else f"{int(count + 1e-6):,}"


class _Silent:
    """The bar when progress is off, or when a bar around it is drawn."""

    def advance(self, n: float = 1) -> None:
        """Do nothing."""

    def say(self, line: str) -> None:
        """Write the line, unless progress is off."""
        if _running:
            _running[-1].say(line)
        else:
            _write(line)


_quiet_by_default = True
"""Whether progress is off by default, in every thread: the public switch."""

_quiet: ContextVar[bool | None] = ContextVar("quiet", default=None)
"""The setting of a block, see `quieted`.

A thread that is to show progress runs in a copy of the context.
"""

_running: list[Bar] = []
_begun: dict[str, float] = {}
"""Description -> time of a task's last first line, so that many short tasks write few lines."""


def set_quiet(quiet: bool) -> None:
    """Set the default: progress off (True, as Python begins) or on."""
    global _quiet_by_default
    _quiet_by_default = quiet
    _begun.clear()


@contextmanager
def quieted(quiet: bool) -> Iterator[None]:
    """Within the context, progress is off or on in this thread."""
    token = _quiet.set(quiet)
    _begun.clear()
    try:
        yield
    finally:
        _quiet.reset(token)
        _begun.clear()


def is_quiet() -> bool:
    """Whether progress is off."""
    if is_heard():
        return False
    said = _quiet.get()
    return _quiet_by_default if said is None else said


def is_drawn() -> bool:
    """Whether there is a terminal on which libraries may draw bars of their own."""
    return not is_quiet() and not is_heard() and sys.stderr.isatty()


def enable_progress_bars() -> None:
    """Show progress in Python, where it is off by default."""
    set_quiet(False)


def disable_progress_bars() -> None:
    """Turn progress off again, as it is by default."""
    set_quiet(True)


def are_progress_bars_disabled() -> bool:
    """Whether progress is off."""
    return is_quiet()


def announce(line: str) -> None:
    """Print a line on stderr about what begins now, unless progress is off."""
    if is_heard():
        emit("message", text=line)
    elif is_quiet():
        return
    elif _running and _console().is_terminal:
        # Above the bar that is drawn.
        _running[-1].say(line)
    else:
        _tell(line)


@contextmanager
def bar(description: str, total: float | None = None, unit: str = "", *, done: float = 0) -> Iterator[Bar]:
    """A progress bar for a task, drawn while the block runs.

    Within another task's block nothing is drawn: one bar at a time.

    Args:
        description: what is being done, e.g. "activations".
        total: number of units of work; None where it cannot be told, so that only the time is shown.
        unit: "bytes" shows sizes, anything else shows counts; where it is given, the rate is told in it.
        done: units that an earlier attempt has done.
    """
    if is_quiet() or _running:
        yield _Silent()
        return
    meter = Meter(total=total, unit=unit, first=done)
    with _shown(description, meter) as shown:
        _running.append(shown)
        try:
            yield shown
        finally:
            _running.remove(shown)


@contextmanager
def starting() -> Iterator[None]:
    """Announce the imports of large libraries in the block, unless they are loaded already."""
    if "torch" in sys.modules and "transformers" in sys.modules:
        yield
        return
    with bar("loading torch and transformers"):
        yield


@contextmanager
def beside(description: str) -> Iterator[None]:
    """Within the context, a library draws its own bars on a terminal.

    There it is announced in one line; elsewhere it is shown as by `bar`.
    """
    if is_quiet() or (_console().is_terminal and not is_heard()):
        announce(description)
        yield
        return
    with bar(description):
        yield


def duration(seconds: float) -> str:
    """Seconds in words: "2.3 s", "45 s", "3 min", "2 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@dataclass(kw_only=True)
class Lines:
    """A task's progress as plain lines, if stderr is no terminal.

    Attributes:
        description: what is being done.
        meter: how far it has come.
        write: takes a line.
    """

    description: str
    meter: Meter
    write: Callable[[str], None]
    _last: float = field(default=0.0, init=False)
    _wait: float = field(default=EVERY, init=False)
    _counted: str = field(default="", init=False)
    _ended: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Write the first line."""
        self._counted = self.meter.counted
        self.write(self._line)

    def tick(self) -> None:
        """Write a line if one is due."""
        now, counted = self.meter.seconds, self.meter.counted
        moved = counted != self._counted
        if now - self._last < (EVERY if moved else self._wait):
            return
        # The same line again and again says nothing: twice as long until the next.
        self._wait = EVERY if moved else min(_STILL, 2 * self._wait)
        self._last, self._counted = now, counted
        # All is done before the block ends: this is then its last line.
        self._ended = self.meter.complete
        self.write(self._line)

    def end(self) -> None:
        """Write the last line of a task that took long enough."""
        if self.meter.seconds >= EVERY and self.meter.complete and not self._ended:
            self.write(self._line)

    def advance(self, n: float = 1) -> None:
        """Advance by n units."""
        self.meter.advance(n)

    def say(self, line: str) -> None:
        """Write another line."""
        _write(line)

    @property
    def _line(self) -> str:
        return f"{self.description}: {self.meter}".removesuffix(": ")


def _shown(description: str, meter: Meter) -> AbstractContextManager[Bar]:
    """The bar of a task: told to a listener, drawn on a terminal, or in lines."""
    if is_heard():
        return reported(description, meter)
    if in_notebook():
        return notebook_bar(description, meter)
    console = _console()
    return (_drawn if console.is_terminal else _told)(description, meter, console)


@contextmanager
def _told(description: str, meter: Meter, console: "Console") -> Iterator[Bar]:
    lines = Lines(description=description, meter=meter, write=_tell)
    now = time.monotonic()
    if now - _begun.get(description, -EVERY) >= EVERY:
        _begun[description] = now
        lines.begin()
    try:
        with watched(lines.tick, _TICK):
            yield lines
    finally:
        lines.end()


@contextmanager
def _drawn(description: str, meter: Meter, console: "Console") -> Iterator[Bar]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    what = TextColumn("{task.description}", markup=False)
    # The library's own estimate forgets what is older than 30 s, and so has none where a step takes longer.
    facts = TextColumn("{task.fields[meter]}", markup=False)
    columns: list[Any] = [SpinnerColumn(), what, facts] if meter.total is None else [what, BarColumn(None), facts]
    with Progress(*columns, console=console, transient=True, expand=meter.total is not None) as progress:
        task = progress.add_task(description, total=meter.total, completed=int(meter.count), meter=meter)

        class _Drawn:
            def advance(self, n: float = 1) -> None:
                meter.advance(n)
                progress.advance(task, n)

            def say(self, line: str) -> None:
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        yield _Drawn()


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _tell(line: str) -> None:
    """Write a line of progress if stderr is no terminal."""
    _write(line)


def _write(line: str) -> None:
    if is_heard():
        emit("message", text=line)
    elif not is_quiet():
        print(line, file=sys.stderr, flush=True)


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
