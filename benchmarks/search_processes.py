"""A whole search by one process, by two that share its journal, and by one that is killed again and again.

    python benchmarks/search_processes.py [--kills N]

On the embedded model. Printed are the time of one process over that of two, and whether candidates, fronts and judged
answers are the same: of two processes on a file and on an SQLite database, and of a search that was killed (SIGKILL) at
random moments and gone on with each time.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.helpers.killed_processes import Workers, all_same

SOURCE = """
from pathlib import Path

from weight_edit.directions.find_request import FindRequest
from weight_edit.runtime.loading import load
from weight_edit.search.request import SearchRequest
from weight_edit.search.search import search_edits

find = FindRequest.read(
    target="organism:refused:train",
    baseline="organism:answered:train",
    validation_target="organism:refused:validation",
    validation_baseline="organism:answered:validation",
    n_train=24,
    n_validation=12,
    n_answers=16,
)
request = SearchRequest(
    find=find,
    n_train=24,
    n_validation=24,
    trials=32,
    generation=16,
    descents=4,
    descent={"steps": 6, "prices": (0.1, 1.0), "refresh": 3, "directions": 2},
    judged=16,
    finalists=3,
    lengths=(32, 64),
)


def main(where: str):
    # A place that begins with "sqlite:" keeps its journal in a database beside its folder.
    database = where.partition("sqlite:")[2]
    result = search_edits(
        load("organism", dtype="float32"),
        request,
        out=Path(database or where),
        storage=f"sqlite:///{database}.db" if database else None,
        resume=True,
    )
    said = result.to_dict()
    for each in (*said["front"], *said["others"], said["plain"]):
        each.pop("recipe")
    return {
        "candidates": [each.to_dict() for each in result.candidates],
        **{key: said[key] for key in ("front", "others", "plain", "picked", "tau", "sketch_tau")},
    }
"""


def timed(work: Any) -> tuple[float, Any]:
    """Seconds, and what was made."""
    began = time.monotonic()
    made = work()
    return time.monotonic() - began, made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        places = Path(folder)
        with Workers(SOURCE, places / "workers") as workers:
            alone, one = timed(lambda: workers.alone(places / "alone"))
            print(f"one process: {alone:.1f} s, {len(one['candidates'])} candidates, front of {len(one['front'])}")
            both, two = timed(lambda: workers.together(places / "both", 2))
            print(f"two processes, file: {alone / both:.2f} times as fast, same: {all_same([one, *two])}", flush=True)
            shared, three = timed(lambda: workers.together(Path(f"sqlite:{places / 'shared'}"), 2))
            same = all_same([one, *three])
            print(f"two processes, SQLite: {alone / shared:.2f} times as fast, same: {same}", flush=True)
            spots = [places / f"killed{number}" for number in range(given.kills + 1)]
            killed = workers.killed(spots, kills=given.kills, seed=0, longest=0.4 * alone, count=1)
            print(f"killed {given.kills} times, {len(killed)} searches ended: same: {all_same([one, *killed])}")
            print(json.dumps({"front": [each["digest"] for each in one["front"]]}))


if __name__ == "__main__":
    main()
