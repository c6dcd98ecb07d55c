"""What a command has said on stderr so far: progress, steps of a run, messages, and the error that ended it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import printable
from weight_edit.utils.progress import duration

_MOST = 4_000_000
"""Bytes of a log that are read: of a longer one the last."""

_LINES = 200
"""Lines that are kept to be shown."""

_LONGEST = 2_000


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the task has come that a command is at.

    Attributes:
        task: its name.
        count, total: units done, and of how many; None where that is not known.
        left: estimated seconds.
    """

    task: str
    count: float | None = None
    total: float | None = None
    left: float | None = None

    @property
    def share(self) -> float | None:
        """The part that is done, 0 to 1; None where that is not known."""
        if self.count is None or not self.total:
            return None
        return min(1.0, max(0.0, self.count / self.total))

    def __str__(self) -> str:
        """Task, part and time left in words: "bypass scores, 40%, about 3 min left"."""
        parts = [self.task]
        if self.share is not None:
            parts.append(f"{self.share:.0%}")
        if self.left is not None and self.share != 1:
            parts.append(f"about {duration(self.left)} left")
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class LoggedStep:
    """A step of a run.

    Attributes:
        name: such as "baseline".
        state: "begun", "done" or "kept", which is done earlier.
        seconds: that it took; None while it is begun.
        figures: what it found, by name.
    """

    name: str
    state: str
    seconds: float | None = None
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class JobLog:
    """A command's stderr, read.

    Attributes:
        lines: what it said, each one plain line; the last ones.
        progress: of its present task; None before the first.
        steps: of a run, in order, each with its last state; those that are still to come have the state "to come".
        front: of a search so far, (refusal, damage) of each point.
        front_judged: whether those refusals are rates of judged answers; else they are cheap scores.
        error: the message that it ended with.
    """

    lines: tuple[str, ...] = ()
    progress: Progress | None = None
    steps: tuple[LoggedStep, ...] = ()
    front: tuple[tuple[float, float], ...] = ()
    front_judged: bool = False
    error: str | None = None


def read_log(path: Path) -> JobLog:
    """The log at a path; an empty one where there is none yet."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            size = file.tell()
            file.seek(max(0, size - _MOST))
            text = file.read(_MOST).decode("utf-8", "replace")
    except OSError:
        return JobLog()
    return parse_log(text.splitlines())


def parse_log(written: Iterable[str]) -> JobLog:
    """The log of lines, each an event as JSON or plain words.

    A line that is no event is shown as it stands, without control characters: other libraries write there too.
    """
    lines: list[str] = []
    steps: dict[str, LoggedStep] = {}
    progress: Progress | None = None
    error: str | None = None
    front: tuple[tuple[float, float], ...] = ()
    judged = False
    for line in written:
        event = _event(line)
        kind = event.get("event") if event else None
        if event is None:
            if line.strip():
                lines.append(_shown(line))
        elif kind == "progress":
            progress = Progress(
                task=_shown(event.get("task")),
                count=_number(event.get("count")),
                total=_number(event.get("total")),
                left=_number(event.get("left")),
            )
        elif kind == "step":
            step = _step(event)
            steps[step.name] = step
            lines.append(f"{step.name}: {step.state}" + ("" if step.seconds is None else f", {duration(step.seconds)}"))
        elif kind == "steps":
            names = event.get("steps")
            for name in names if isinstance(names, list) else ():
                steps.setdefault(_shown(name), LoggedStep(name=_shown(name), state="to come"))
        elif kind == "front":
            front, judged = _front(event), event.get("judged") is True
        elif kind == "error":
            error = _shown(event.get("message"))
            lines.append(error)
        else:
            lines.append(_shown(event.get("text", line)))
    return JobLog(
        lines=tuple(lines[-_LINES:]),
        progress=progress,
        steps=tuple(steps.values()),
        front=front,
        front_judged=judged,
        error=error,
    )


def _event(line: str) -> dict[str, Any] | None:
    """The event of a line; None where it is none."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("event"), str) else None


def _step(event: dict[str, Any]) -> LoggedStep:
    figures = event.get("figures")
    return LoggedStep(
        name=_shown(event.get("step")),
        state=_shown(event.get("state")),
        seconds=_number(event.get("seconds")),
        figures=figures if isinstance(figures, dict) else {},
    )


def _front(event: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    points = event.get("points")
    found = []
    for point in points if isinstance(points, list) else ():
        if isinstance(point, dict):
            refusal, damage = _number(point.get("refusal")), _number(point.get("damage"))
            if refusal is not None and damage is not None:
                found.append((refusal, damage))
    return tuple(found)


def _shown(text: object) -> str:
    return printable(str(text).strip(), _LONGEST)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
