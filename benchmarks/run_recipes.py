"""Every recipe on the embedded model, one after the other: seconds of each, and whether its bounds held.

`python benchmarks/run_recipes.py --help`. The table is that of `recipes/README.md`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*command, *extra], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.stderr.write(f"{name}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no message'}\n")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Timed(name, seconds, processor, done.returncode)


def main() -> int:
    """Exit code 1 if any recipe did not end with 0."""
    known = sorted(path.stem for path in RECIPES.glob("*.yaml") if path.stem not in OVERLAYS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all when none is given")
    parser.add_argument("--out", type=Path, help="keep the runs' folders here")
    parser.add_argument("--json", type=Path, help="write the table to this file too")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for each of them")
    options = parser.parse_args()
    unknown = set(options.names) - set(known)
    if unknown:
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}")

    extra = [argument for each in options.set for argument in ("--set", each)]
    done = []
    print("| recipe | seconds | of the processor | exit code |\n|---|---|---|---|")
    with TemporaryDirectory() as scratch:
        for name in options.names or known:
            out = (options.out or Path(scratch)) / name
            each = timed(name, out, [*extra, "--overwrite"])
            done.append(each)
            print(f"| {name} | {each.seconds:.0f} | {each.processor:.0f} | {each.code} |", flush=True)
    seconds, processor = sum(each.seconds for each in done), sum(each.processor for each in done)
    print(f"| all {len(done)} | {seconds:.0f} | {processor:.0f} | {max(each.code for each in done)} |")
    if options.json:
        rows = [vars(each) for each in done]
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(each.code for each in done))


if __name__ == "__main__":
    raise SystemExit(main())
