"""How far a search is, as a caller can show it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from weight_edit.search.front import FrontPoint

STEPS = ("preparation", "published settings", "sampler", "descents", "held-out scores", "judging", "finalists", "round")
"""What a search does, in order; rounds repeat the descents and the judging."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a search has done so far.

    Attributes:
        step: one of `STEPS`, with a number behind it where it is one of several.
        done, total: units of this step.
        candidates: scored so far, in the whole search.
        trials: of the sampler, done and to be done.
        front: the best points so far, by rising damage: by cheap scores, and by judged answers once there are any.
        judged: whether the front is by judged answers.
        seconds: since this process began.
        seconds_per_trial: of the sampler's candidates, of those that this process scored; None before there are any.
    """

    step: str
    done: int
    total: int
    candidates: int
    trials: tuple[int, int]
    front: Sequence[FrontPoint]
    judged: bool
    seconds: float
    seconds_per_trial: float | None


Told = Callable[[Progress], None]
"""Shows progress."""


class Watch:
    """Seconds since it was made, and those that trials took.

    Attributes:
        spent: seconds of each step, of this process alone.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.spent: dict[str, float] = {}
        self._trials, self._trial_seconds = 0, 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._began

    @property
    def seconds_per_trial(self) -> float | None:
        """Seconds that a trial took on average."""
        return self._trial_seconds / self._trials if self._trials else None

    def trials(self, count: int, seconds: float) -> None:
        """Take note of trials."""
        self._trials += count
        self._trial_seconds += seconds
