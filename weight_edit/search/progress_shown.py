"""The progress of a search on a terminal, or as plain lines: a bar for each step, and the front as it grows."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from weight_edit.search.front import FrontPoint
from weight_edit.search.progress import Progress, Told
from weight_edit.utils.progress import Bar, announce, bar, duration
from weight_edit.utils.progress_events import emit

EVERY = 20.0
"""Seconds between two lines on the front, at least, within a step."""

_MOST = 6
"""Points of the front in a line."""


@contextmanager
def shown(clock: Callable[[], float] = time.monotonic) -> Iterator[Told]:
    """Within the context, the function that it gives shows the progress of a search, unless progress is off.

    Args:
        clock: seconds.
    """
    with ExitStack() as stack:
        yield _Display(stack, clock)


class _Display:
    """What is shown: the bar of the step, and the last front."""

    def __init__(self, stack: ExitStack, clock: Callable[[], float]) -> None:
        self._stack, self._clock = stack, clock
        self._step = ""
        self._bar: Bar | None = None
        self._done = 0
        self._front: tuple[FrontPoint, ...] = ()
        self._said = clock()

    def __call__(self, progress: Progress) -> None:
        """Show progress."""
        if (step := _step(progress)) != self._step:
            self._begin(step, progress)
        done, _ = _units(progress)
        if self._bar is not None and done > self._done:
            self._bar.advance(done - self._done)
            self._done = done
        if self._clock() - self._said >= EVERY:
            self._say_front(progress)

    def _begin(self, step: str, progress: Progress) -> None:
        self._stack.close()
        self._say_front(progress)
        self._step = step
        done, total = _units(progress)
        self._done = done
        # What has few long units has bars of its own, as `find` and descents have; one bar is drawn at a time.
        drawn = total > 1 and not step.startswith("descents")
        self._bar = self._stack.enter_context(bar(step, total, done=done)) if drawn else None

    def _say_front(self, progress: Progress) -> None:
        front = tuple(progress.front)
        if front and front != self._front:
            announce(front_in_words(front, judged=progress.judged) + _cost(progress))
            points = [{"refusal": point.refusal, "damage": point.damage} for point in front]
            emit("front", judged=progress.judged, points=points)
            self._front, self._said = front, self._clock()


def front_in_words(front: Sequence[FrontPoint], *, judged: bool) -> str:
    """A front in one line: refusal and damage of its points, or of a few of them."""
    step = max(1, -(-len(front) // _MOST))
    points = [*front[:-1:step], front[-1]]
    said = ", ".join(f"{point.refusal:.2f} at {point.damage:.2g}" for point in points)
    what = "judged refusal" if judged else "cheap score of refusal (no rate)"
    more = f" (of {len(front)})" if len(points) < len(front) else ""
    return f"front, {what} at KL in nats per token: {said}{more}"


def _cost(progress: Progress) -> str:
    each = progress.seconds_per_trial
    return "" if each is None else f"; {progress.candidates} scored, {duration(each)} a trial"


def _step(progress: Progress) -> str:
    """The step's name; all generations of a sampler are one step."""
    return "trials of the sampler" if progress.step.startswith("sampler") else progress.step


def _units(progress: Progress) -> tuple[int, int]:
    """What is done of how much."""
    return progress.trials if progress.step.startswith("sampler") else (progress.done, progress.total)
