"""Every recipe on the embedded model, one per core at a time: seconds of each, and whether its bounds held.

`python benchmarks/run_recipes.py --help`. The table is that of `recipes/README.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes"
OVERLAYS = ("hub",)


@dataclass(frozen=True)
class Timed:
    """One recipe's run: seconds by the clock and of the processor (all its threads), and the command's exit code."""

    name: str
    seconds: float
    processor: float
    code: int


def timed(name: str, out: Path, extra: list[str]) -> Timed:
    """Run one recipe as a user would."""
    command = [sys.executable, "-m", "weight_edit", "run", str(RECIPES / f"{name}.yaml"), "--out", str(out), "--quiet"]
    # One thread each: they share the cores, and models here are too small to gain from more.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [*command, *extra], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        lines = said.read().strip().splitlines()
    if process.returncode:
        sys.stderr.write(f"{name}: {lines[-1] if lines else 'no message'}\n")
    return Timed(name, time.monotonic() - began, usage.ru_utime + usage.ru_stime, process.returncode)


def main() -> int:
    """Exit code 1 if any recipe did not end with 0."""
    known = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem not in OVERLAYS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all when none is given")
    parser.add_argument("--out", type=Path, help="keep the runs' folders here")
    parser.add_argument("--json", type=Path, help="write the table to this file too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for each of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time")
    options = parser.parse_args()
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}")

    extra = [*(argument for each in options.set for argument in ("--set", each)), "--overwrite"]
    began = time.monotonic()
    done: list[Timed] = []
    print("| recipe | seconds | of the processor | exit code |\n|---|---|---|---|")
    with TemporaryDirectory() as scratch, ThreadPoolExecutor(options.jobs) as pool:
        folder = options.out or Path(scratch)
        for each in pool.map(lambda name: timed(name, folder / name, extra), options.names or known):
            done.append(each)
            print(f"| {each.name} | {each.seconds:.0f} | {each.processor:.0f} | {each.code} |", flush=True)
    wall, processor = time.monotonic() - began, sum(each.processor for each in done)
    print(f"| all {len(done)}, {options.jobs} at a time | {wall:.0f} | {processor:.0f} | {max(e.code for e in done)} |")
    if options.json:
        rows = [vars(each) for each in done]
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(each.code for each in done))


if __name__ == "__main__":
    raise SystemExit(main())
