"""Thousands of hostile inputs and forged outputs, in bounded time and memory, by seed (see `tests/input_fuzzing.py`).

`python benchmarks/fuzz_inputs.py [--cases 2000] [--first 0] [--processes 2]`. Inputs: configs, tokenizers, chat
templates, prompt files, recipes, directions, manifests. Outputs: numbers moved by a unit, a second step that nobody
told of, other words in manifest and card, swapped and unedited tensors. Exit code 1 where one ends in a traceback,
hangs, takes too much memory, or passes that should not.
"""

import argparse
import collections
import json
import os
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MOST_MEMORY = 12 << 30
"""Bytes of address space: a size from a hostile file must not be believed to the point where the machine suffers."""

MOST_GROWTH = 1 << 30
"""Bytes that a case may take beyond what the process had at its peak before."""

HANGS = 30.0
"""Seconds beyond the limit within the process, after which it is killed: something there heeds no signal."""


def work(seconds: float) -> None:
    """Try the seeds that come on stdin, and answer each with a line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as name:
        os.environ["WEIGHT_EDIT_CACHE"] = f"{name}/cache"
        # The cache's place is set before the package is loaded.
        import torch

        from tests.helpers.input_fuzzing import PassedWrongly, Sample, Wrong, treat
        from weight_edit.utils import bounded_process as limited
        from weight_edit.utils.progress import set_quiet

        torch.set_num_threads(1)
        set_quiet(True)
        # What loops takes all of its limit.
        limited.SECONDS = 1
        sample = Sample(Path(name) / "sample")
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            seed, root = int(line), Path(name) / "case"
            root.mkdir()
            before, began = _peak(), time.monotonic()
            try:
                found = {"outcome": treat(sample, root, seed, seconds)}
            except PassedWrongly as error:
                found = {"passed": str(error)}
            except Wrong as error:
                found = {"wrong": str(error)}
            if _peak() - before > MOST_GROWTH:
                found = {"wrong": f"seed {seed}: took {(_peak() - before) >> 20} MiB ({found})"}
            shutil.rmtree(root, ignore_errors=True)
            print(json.dumps({**found, "seconds": time.monotonic() - began}), file=answers, flush=True)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@dataclass
class Tally:
    """What came of all cases."""

    outcomes: "collections.Counter[str]" = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    slowest: list[tuple[float, int]] = field(default_factory=list)

    def add(self, seed: int, found: dict[str, object]) -> None:
        """Count one case."""
        for name, kept in (("wrong", self.wrong), ("passed", self.passed)):
            if name in found:
                kept.append(str(found[name]))
                print(f"{name}: {found[name]}", flush=True)
                self.outcomes[name] += 1
        if "outcome" in found:
            self.outcomes[str(found["outcome"])] += 1
        self.slowest = sorted([*self.slowest, (float(str(found.get("seconds", 0.0))), seed)])[-5:]


class Worker:
    """A process that tries one case after the other, and is replaced when one does not end."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.seed, self.since = seconds, -1, time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--work", "--seconds", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("FUZZ_DEBUG") else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    @property
    def answers(self) -> IO[str]:
        """Where its lines come from."""
        assert self.process.stdout is not None
        return self.process.stdout

    def give(self, seed: int) -> None:
        """Have it try a case."""
        assert self.process.stdin is not None
        self.seed, self.since = seed, time.monotonic()
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()

    @property
    def hangs(self) -> bool:
        """Whether its case has taken longer than even a stopped one may."""
        return time.monotonic() - self.since > self.seconds + HANGS + (240 if self.seed < 0 else 0)

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def supervise(seeds: list[int], processes: int, seconds: float, tally: Tally) -> None:
    """Have all seeds tried."""
    waiting = list(reversed(seeds))
    workers = [Worker(seconds) for _ in range(min(processes, len(waiting)))]
    done = 0
    while workers:
        ready, _, _ = select.select([worker.answers for worker in workers], [], [], 1.0)
        for worker in list(workers):
            line = worker.answers.readline() if worker.answers in ready else ""
            died = worker.answers in ready and not line
            if not line and not died and not worker.hangs:
                continue
            if worker.seed >= 0:
                found = json.loads(line) if line else {"wrong": f"seed {worker.seed}: {'died' if died else 'hangs'}"}
                tally.add(worker.seed, found)
                done += 1
                if done % 100 == 0:
                    print(f"{done}: {dict(tally.outcomes)}", file=sys.stderr, flush=True)
            elif not line:
                worker.end()
                raise SystemExit("a worker did not start")
            if not line or not waiting:
                worker.end()
                workers.remove(worker)
                if not line and waiting:
                    workers.append(Worker(seconds))
            else:
                worker.give(waiting.pop())


def main() -> int:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--seeds", help="these alone, separated by commas")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long one may take")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.seconds)
        return 0
    began, tally = time.monotonic(), Tally()
    seeds = list(range(options.first, options.first + options.cases))
    if options.seeds:
        seeds = [int(seed) for seed in options.seeds.split(",")]
    supervise(seeds, options.processes, options.seconds, tally)
    slowest = ", ".join(f"{seconds:.1f} s (seed {seed})" for seconds, seed in reversed(tally.slowest))
    print(f"{len(seeds)} cases in {time.monotonic() - began:.0f} s, the slowest {slowest}")
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"  {outcome}: {count}")
    print(f"treated wrongly: {len(tally.wrong)}; passed that should not: {len(tally.passed)}")
    return bool(tally.wrong or tally.passed)


if __name__ == "__main__":
    raise SystemExit(main())
