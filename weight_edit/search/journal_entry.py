"""What a journal holds: attempts at units of work, each an Optuna trial."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

OBJECTIVES = ("refusal", "damage")
"""What a study minimises: the names of a result's `values`."""


class FinishedError(Exception):
    """The attempt has ended, so that nothing of it changes any more."""


class State(Enum):
    """What has become of an attempt, in one direction: waiting, running, and then one of the others."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Entry:
    """An attempt as it was when it was read.

    Attributes:
        number: in the order in which attempts were added, which is the same for all processes.
        state: what has become of it.
        attributes: JSON values by name.
    """

    number: int
    state: State
    attributes: Mapping[str, Any]
