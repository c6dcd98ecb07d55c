"""This process's number among those that a launcher (`torchrun`, `accelerate launch`) started for one run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Launched:
    """The place of this process among those of a run.

    Attributes:
        rank: its number, from 0; the first one writes and speaks.
        count: how many processes there are, on all machines.
        local_rank, local_count: the same among those on this machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @property
    def several(self) -> bool:
        """Whether there is more than one process."""
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0


def launched(environment: Mapping[str, str] = os.environ) -> Launched:
    """The place of this process, as the launcher's variables say it; that of the only one where they say nothing.

    Args:
        environment: RANK, WORLD_SIZE and the address of the first process are read, LOCAL_RANK and LOCAL_WORLD_SIZE
            where they are there.
    """
    try:
        rank, count = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", rank))
        local_count = int(environment.get("LOCAL_WORLD_SIZE", count))
    except (KeyError, ValueError):
        return Launched()
    told = "MASTER_ADDR" in environment and "MASTER_PORT" in environment
    if not told or count < 2 or not 0 <= rank < count:
        return Launched()
    return Launched(rank=rank, count=count, local_rank=local_rank, local_count=local_count)
