"""The file side of verify against reading both models once, alternating in one run, with a cold and a warm page cache.

`python benchmarks/bench_verify.py --help`. The checkpoint is a random Llama in bfloat16, made and edited on the spot.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from making import DIRECTION, make_checkpoint, make_direction

CHECK = """
import json, os, resource, sys
from pathlib import Path
from weight_edit.baking.bake import rows_of
from weight_edit.baking.prepare import EditOptions, prepare
from weight_edit.checkpoint.integrity.integrity import check_integrity
from weight_edit.hub.source import resolve
from weight_edit.plan.step import EditStep

base, edited, directions, cold = sys.argv[1:]
baking = prepare(resolve(base), [EditStep(directions=rows_of(directions))], EditOptions())
edits = baking.expected
if cold == "cold":
    for path in [*Path(base).iterdir(), *Path(edited).iterdir()]:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = check_integrity(
    baking.checkpoint, Path(edited), edits=edits, added=baking.added, written_files={"README.md"}
)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
exact = sum(edit.exact for edit in report.edits)
memory = (after - before) / 1024
print(json.dumps([report.seconds, report.bytes_read, memory, list(report.problems), exact, len(edits)]))
"""


def drop(folder: Path) -> None:
    """Take a folder's files out of the page cache."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_both(folders: list[Path], cold: bool) -> float:
    """Seconds that `cat` of all files of both takes."""
    if cold:
        for folder in folders:
            drop(folder)
    files = [str(path) for folder in folders for path in sorted(folder.iterdir())]
    began = time.monotonic()
    with open(os.devnull, "wb") as null:  # noqa: PTH123
        # Through a pipe: cat into /dev/null itself would not read at all.
        cat = subprocess.Popen(["cat", *files], stdout=subprocess.PIPE)
        subprocess.run(["dd", "bs=4M", "of=/dev/null", "status=none"], stdin=cat.stdout, stdout=null, check=True)
        cat.wait()
    return time.monotonic() - began


def main() -> None:
    """Print one line per run, then medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.5, help="size of the checkpoint (default .5)")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs (default 5)")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (a temporary folder by default)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        base, out, directions = work / "base", work / "out", make_direction(work / DIRECTION)
        make_checkpoint(base, options.gigabytes)
        bake = "import sys; from weight_edit import bake; bake(sys.argv[1], sys.argv[2], sys.argv[3])"
        subprocess.run([sys.executable, "-c", bake, str(base), str(directions), str(out)], check=True)
        os.sync()
        for kind in ("cold", "warm"):
            ratios = []
            for run in range(options.runs):
                cat = read_both([base, out], kind == "cold")
                command = [sys.executable, "-c", CHECK, str(base), str(out), str(directions), kind]
                found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                seconds, read, memory, problems, exact, edits = json.loads(found)
                ratios.append(seconds / cat)
                print(
                    f"{kind} run {run + 1}: check {seconds:.2f} s ({read / 1e9:.2f} GB read, {memory:.0f} MiB more, "
                    f"{exact} of {edits} bit for bit, {len(problems)} problems), cat {cat:.2f} s, "
                    f"ratio {ratios[-1]:.2f}",
                    flush=True,
                )
            print(f"{kind}: median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
