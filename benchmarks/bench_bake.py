"""Bake against `cp -r` of the same checkpoint, and other ways to do the same; prints Markdown tables.

Ratios are within one run, the two sides alternating, each followed by sync, after one pair that is not counted. Peak
memory is that of the largest process, children included. A bake that meets an architecture for the first time proves
its anatomy in a child and remembers it: the line "cold" is such a first bake, all others find it in the cache.

`make bench`, or `python benchmarks/bench_bake.py --help`; up to four times the largest size is needed on disk.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from alternatives_table import alternatives_table
from making import DIRECTION, make_checkpoint, make_direction
from timing import Compared, Run, Side, alternate, bake_command, peak, run, seconds
from verify_table import verify_table


def bake_side(work: Path) -> Side:
    """The real command."""
    arguments = ("bake", work / "base", "--directions", work / DIRECTION, "--out", work / "out", "--quiet")
    return Side("bake", bake_command(*arguments), work / "out")


def copy_side(work: Path) -> Side:
    """What a bake is held against."""
    return Side("cp -r", ["cp", "-r", str(work / "base"), str(work / "copy")], work / "copy")


def bake_table(sizes: list[float], shard_bytes: int, pairs: int, folder: Path | None) -> None:
    """One row per size, a row for a first bake, and how flat memory is."""
    print("| checkpoint | bake (s) | cp -r (s) | bake / cp -r: median (range) | peak memory of bake (MiB) |")
    print("|---|---|---|---|---|")
    peaks = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            work = Path(name)
            exact = make_checkpoint(work / "base", size, shard_bytes) / 1e9
            make_direction(work / DIRECTION)
            if not peaks:
                _cold_row(work, exact)
            # Another size is another config, so the first pair, which is not counted, proves it.
            found = alternate(bake_side(work), copy_side(work), pairs, work / "cache")
        peaks.append(peak(found.first))
        _row(f"{exact:.2f} GB", found)
    print(f"\nPeak memory, largest over smallest: {max(peaks) / min(peaks):.2f}.", flush=True)


def _cold_row(work: Path, size: float) -> None:
    copied = run(copy_side(work), work / "cold")
    shutil.rmtree(work / "cold", ignore_errors=True)
    baked: Run = run(bake_side(work), work / "cold")
    ratio = baked.seconds / copied.seconds
    what = f"{size:.2f} GB, cold (one run)"
    print(f"| {what} | {baked.seconds:.2f} | {copied.seconds:.2f} | {ratio:.2f} | {baked.peak_mib:.0f} |", flush=True)


def _row(what: str, found: Compared) -> None:
    first, second = found.first, found.second
    print(f"| {what} | {seconds(first):.2f} | {seconds(second):.2f} | {found.ratio} | {peak(first):.0f} |", flush=True)


def main() -> None:
    """All tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="*", default=[0.5, 2.5, 5.0], metavar="GB")
    parser.add_argument("--shard-mb", type=int, default=500, metavar="MB", help="of the first table (default 500)")
    parser.add_argument("--pairs", type=int, default=5, help="of runs per size (default 5)")
    parser.add_argument("--others", type=float, default=2.5, metavar="GB", help="size for the other tables; 0: none")
    parser.add_argument("--other-pairs", type=int, default=3, help="for transformers and the loop (default 3)")
    parser.add_argument("--verify-pairs", type=int, default=5, help="for verify (default 5)")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder by default)")
    options = parser.parse_args()
    processor = f"{os.cpu_count()} processors, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    print(f"`{' '.join(['python', *sys.argv])}`: Python {platform.python_version()}, {processor}\n", flush=True)
    if options.sizes:
        bake_table(options.sizes, options.shard_mb * 1_000_000, options.pairs, options.folder)
    if not options.others:
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        size = make_checkpoint(work / "base", options.others) / 1e9
        make_direction(work / DIRECTION)
        if options.other_pairs:
            alternatives_table(work, size, bake_side(work), copy_side(work), options.other_pairs)
        if options.verify_pairs:
            verify_table(work, size, options.verify_pairs)


if __name__ == "__main__":
    main()
