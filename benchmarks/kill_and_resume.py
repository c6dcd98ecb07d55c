"""Kill a bake at random moments, go on with it, and compare with one that nobody interrupted.

`python benchmarks/kill_and_resume.py [--kills 50] [--gigabytes 0.5] [--shard-mb 50] [--seed 0]`, or of a GGUF file, in
which a bake goes on within the file, `[--gguf FILE --directions FILE]`. Moments are spread over the whole command; a
kill that comes after its end does not count. After each SIGKILL the output must be absent or complete and equal; then
`--resume` must end in the same bytes, and leave no other file. Exit code 1 if anything is otherwise.
"""

import argparse
import collections
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from making import DIRECTION, make_checkpoint, make_direction
from sameness import digests
from timing import bake_command, environment


@dataclass(frozen=True)
class Outcome:
    """One kill.

    Attributes:
        state: what was there after it: "nothing", "finished files", "no finished file", "whole output".
        after: seconds after the start.
        kept: the share of all bytes that the second bake took over.
        problem: what was wrong, if anything was.
    """

    state: str
    after: float
    kept: float
    problem: str = ""


class Trial:
    """A checkpoint, and the bake of it that everything is compared with."""

    def __init__(self, work: Path, base: Path, directions: Path) -> None:
        self.base, self.directions, self.out = base, directions, work / "outputs" / "out"
        files = list(base.glob("*.safetensors")) if base.is_dir() else [base]
        self.bytes, self.files = sum(file.stat().st_size for file in files), len(files)
        self.environment = environment(work / "cache")
        # The first proves the anatomy; the longest of the others says over how long the kills are spread.
        times = []
        for _ in range(4):
            began = time.monotonic()
            subprocess.run(self.command(), check=True, stdout=subprocess.DEVNULL, env=self.environment)
            times.append(time.monotonic() - began)
            self.whole = digests(self.out)
            self.clear()
        self.seconds = max(times[1:])

    def command(self, *more: str) -> list[str]:
        """The real command."""
        arguments = ("bake", self.base, "--directions", self.directions, "--out", self.out)
        return bake_command(*arguments, "--quiet", *more)

    def clear(self) -> None:
        """Remove all outputs."""
        subprocess.run(["rm", "-rf", str(self.out.parent)], check=True)

    def kill(self, after: float) -> Outcome | None:
        """One bake, killed, and a second one that goes on; None when the first had ended."""
        process = subprocess.Popen(self.command(), stdout=subprocess.DEVNULL, env=self.environment)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            self.clear()
            return None
        state, finished = self._state()
        if self.out.exists() and digests(self.out) != self.whole:
            return Outcome(state, after, 0, "the output was there and not whole")
        if state == "whole output":
            again = self._finish("--overwrite", "--resume")
        else:
            again = self._finish("--resume")
        problem = ""
        if again is None:
            problem = "the second bake failed"
        elif digests(self.out) != self.whole:
            problem = "the second bake's bytes differ"
        elif left := [path.name for path in self.out.parent.iterdir() if path != self.out]:
            problem = f"left behind: {left}"
        elif finished and state != "whole output" and not again["bytes_kept"]:
            problem = f"{finished} finished files or beginnings of some were not taken over"
        kept = again["bytes_kept"] / self.bytes if again else 0.0
        self.clear()
        return Outcome(state, after, kept, problem)

    def _finish(self, *how: str) -> "dict[str, int] | None":
        ended = subprocess.run(self.command("--json", *how), capture_output=True, text=True, env=self.environment)
        if ended.returncode:
            print(ended.stderr, file=sys.stderr)
            return None
        return json.loads(ended.stdout)

    def _state(self) -> tuple[str, int]:
        if self.out.exists():
            return "whole output", 0
        journals = list(self.out.parent.glob(".out.partial-*/journal")) if self.out.parent.exists() else []
        if not journals:
            return "nothing", 0
        finished = journals[0].read_bytes().count(b"\n") - 1
        return ("finished files" if finished > 0 else "no finished file"), max(0, finished)


def main() -> int:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--gigabytes", type=float, default=0.5)
    parser.add_argument("--shard-mb", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--directions", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        base, directions = options.gguf or work / "base", options.directions or work / DIRECTION
        if options.gguf is None:
            make_checkpoint(base, options.gigabytes, options.shard_mb * 1_000_000)
        if options.directions is None:
            make_direction(directions)
        trial = Trial(work, base, directions)
        print(f"{trial.bytes / 1e9:.2f} GB in {trial.files} files; an uninterrupted bake takes {trial.seconds:.2f} s")
        outcomes = []
        while len(outcomes) < options.kills:
            found = trial.kill(rng.uniform(0, trial.seconds))
            if found is None:
                continue
            outcomes.append(found)
            told = f"{found.after:.2f} s, {found.state}, {found.kept:.0%} of the bytes kept {found.problem}"
            print(f"{len(outcomes)}: {told}", flush=True)
    bad = [outcome for outcome in outcomes if outcome.problem]
    states = collections.Counter(outcome.state for outcome in outcomes)
    reused = sum(outcome.kept > 0 for outcome in outcomes)
    kept = sum(outcome.kept for outcome in outcomes) / len(outcomes)
    print(f"after the kill: {dict(states)}")
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} equal the uninterrupted bake, byte for byte")
    print(f"{reused} resumed bakes took over something, {kept:.0%} of the bytes in the mean of all")
    return bool(bad)


if __name__ == "__main__":
    raise SystemExit(main())
