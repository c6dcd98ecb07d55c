"""Progress as events, for whoever listens: a log of JSON lines, a view of a terminal, a notebook, a program around it.

An event is a dict of JSON values. All have `time` (ISO 8601, UTC) and `event`:

    progress   task, count, total or None, unit, rate (units per second) or None, left (seconds) or None,
               text: the same in words; done: whether this is the task's last
    message    text: one line
    steps      steps: the names of all steps of a run, in their order, when it begins
    step       step, state ("begun", "done", "failed", "kept": done by an earlier attempt), seconds or None,
               figures {name: value}
    front      of a search, as it grows: points [{refusal, damage}], judged (else by the cheap score)
    error      message, exit_code; the last event of a command that failed or was interrupted
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from weight_edit.utils.watch import watched

if TYPE_CHECKING:
    from weight_edit.utils.progress import Meter

Event = dict[str, Any]
"""An event, as above: what a key holds follows from `event`."""

Listener = Callable[[Event], object]
"""Takes one event."""

EVERY = 1.0
"""Seconds between two events of one task, at least, but for its first and last."""

_STILL = 15.0
"""Seconds between two events of a task while its count stands still."""


@dataclass(frozen=True, kw_only=True)
class _Heard:
    """A listener, how often it is told, and when each task was last told of."""

    listener: Listener
    every: float
    told: dict[str, float] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)


_heard: ContextVar[_Heard | None] = ContextVar("heard", default=None)
"""Who listens in this block; a thread that is to be heard runs in a copy of the context."""


@contextmanager
def progress_events(listener: Listener, *, every: float = EVERY) -> Iterator[None]:
    """Within the context, progress goes to a function as events, and is neither drawn nor printed.

    Whether progress is on or off otherwise does not matter.

    Args:
        listener: takes one event, a dict of JSON values; it is called by several threads, by one at a time.
        every: seconds between two events of one task, at least.
    """
    token = _heard.set(_Heard(listener=listener, every=every))
    try:
        yield
    finally:
        _heard.reset(token)


def is_heard() -> bool:
    """Whether somebody listens, so that nothing is to be drawn."""
    return _heard.get() is not None


def emit(event: str, **values: Any) -> None:
    """Tell the listener, where there is one, of an event."""
    if (heard := _heard.get()) is not None:
        with heard.lock:
            heard.listener(event_of(event, **values))


def event_of(event: str, **values: Any) -> dict[str, Any]:
    """An event, with the time of now."""
    return {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values}


def emit_steps(steps: Sequence[str]) -> None:
    """Tell the listener of all steps that are to come, in their order."""
    emit("steps", steps=list(steps))


def emit_step(step: str, state: str, *, seconds: float | None = None, figures: Mapping[str, Any] | None = None) -> None:
    """Tell the listener that a step has begun, is done, is kept from an earlier attempt, or has failed."""
    emit("step", step=step, state=state, seconds=seconds, figures=dict(figures or {}))


class Reported:
    """The bar of a task that is told as events.

    Args:
        description: what is being done.
        meter: how far it has come.
    """

    def __init__(self, description: str, meter: "Meter") -> None:
        self._description, self._meter = description, meter
        self._count = -1.0

    def advance(self, n: float = 1) -> None:
        """Advance by n units."""
        self._meter.advance(n)

    def say(self, line: str) -> None:
        """Tell a line."""
        emit("message", text=line)

    def tick(self, *, last: bool = False) -> None:
        """Tell how far it has come, where that is due: many short tasks of one name have few events."""
        heard = _heard.get()
        if heard is None:
            return
        meter, now = self._meter, time.monotonic()
        since = now - heard.told.get(self._description, -_STILL)
        moved = meter.count != self._count
        if not last and since < (heard.every if moved else _STILL):
            return
        self._count = meter.count
        heard.told[self._description] = now
        emit(
            "progress",
            task=self._description,
            # Batches count in parts of units, which add up to all but the last digit.
            count=meter.total if meter.complete else round(meter.count, 3),
            total=meter.total,
            unit=meter.unit,
            rate=meter.rate,
            left=None if meter.left is None else round(meter.left, 1),
            text=str(meter),
            done=last,
        )


@contextmanager
def reported(description: str, meter: "Meter") -> Iterator[Reported]:
    """Within the context, a task's progress goes to the listener: at once, while it runs, and at its end."""
    shown = Reported(description, meter)
    heard = _heard.get()
    assert heard is not None
    every = min(0.5, heard.every / 2)
    shown.tick()
    try:
        with watched(shown.tick, every):
            yield shown
    finally:
        shown.tick(last=True)
