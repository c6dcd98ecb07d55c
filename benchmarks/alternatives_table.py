"""The other ways to make the same edit, each against `cp -r`."""

import sys
from pathlib import Path

from making import DIRECTION
from timing import Side, alternate, peak, seconds

SCRIPT = Path(__file__).resolve().parent / "alternatives.py"


def alternatives_table(work: Path, size: float, bake: Side, copy: Side, pairs: int) -> None:
    """A row per way, bake's among them, so that all were measured within minutes of one another."""
    print(f"\n{size:.2f} GB:\n")
    print("| way | seconds | cp -r (s) | way / cp -r: median (range) | peak memory (MiB) |")
    print("|---|---|---|---|---|")
    for side in (bake, *(_other(work, kind) for kind in ("transformers", "loop"))):
        found = alternate(side, copy, pairs, work / "cache")
        times = f"{seconds(found.first):.2f} | {seconds(found.second):.2f}"
        print(f"| {side.name} | {times} | {found.ratio} | {peak(found.first):.0f} |", flush=True)


def _other(work: Path, kind: str) -> Side:
    told = {"transformers": "transformers: load, edit, save_pretrained", "loop": "torch: a loop over the shards"}[kind]
    command = [sys.executable, str(SCRIPT), kind, str(work / "base"), str(work / DIRECTION), str(work / kind)]
    return Side(told, command, work / kind)
