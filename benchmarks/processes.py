"""The same `find` in one process and in several on this machine, each with one thread.

    python benchmarks/processes.py MODEL TARGET BASELINE [--processes N] [--pairs N] [--n-train N] [--n-validation N]
                                   [--max-layer-fraction X] [--dtype NAME]

Both run in turn, as processes of their own. Told is the time of the search with the loading of the model, without
imports: seconds of the clock, and seconds of processor of the process that took most, which others on the machine
disturb less; their ratios are how many times faster several are. The directions' largest difference, whether the choice
is the same, and how many prompts each process took stand beside them. No prompt is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from weight_edit.directions.directions import load_directions
from weight_edit.directions.find_by_name import find_by_name
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.selection import SelectionRule
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.runtime.processes import together


def work(arguments: argparse.Namespace) -> None:
    """One process of a search; writes its times beside the directions."""
    torch.set_num_threads(1)
    # Imports are not what is measured.
    import_module("weight_edit.directions.find")
    out = Path(arguments.out)
    with together() as processes:
        rank = 0 if processes is None else processes.place.rank
        wall, processor = time.perf_counter(), time.process_time()
        find_by_name(
            FindRequest.read(
                target=arguments.target,
                baseline=arguments.baseline,
                n_train=arguments.n_train,
                n_validation=arguments.n_validation,
                n_more=0,
                # A small model may refuse none of them; the passes are the same.
                tokens_from="difference",
                filter_prompts="none",
                best_effort=True,
                rule=SelectionRule(max_layer_fraction=arguments.max_layer_fraction),
            ),
            arguments.model,
            out,
            load_options=LoadOptions(dtype=arguments.dtype, device="cpu"),
            format_options=FormatOptions(),
        )
        times = {"seconds": time.perf_counter() - wall, "processor": time.process_time() - processor}
    out.with_name(f"{rank}.json").write_text(json.dumps(times), encoding="utf-8")


def run(arguments: argparse.Namespace, processes: int, folder: Path) -> dict[str, Any]:
    """A search in so many processes: its times, and the file that it wrote."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, *sys.argv[1:], "--out", str(folder / "found.safetensors")]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    times = [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(processes)]
    return {
        "seconds": max(each["seconds"] for each in times),
        "processor": max(each["processor"] for each in times),
        "found": load_directions(folder / "found.safetensors"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("target")
    parser.add_argument("baseline")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--n-train", type=int, default=32)
    parser.add_argument("--n-validation", type=int, default=16)
    parser.add_argument("--max-layer-fraction", type=float, default=0.8)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.out is not None:
        work(arguments)
        return
    count = arguments.processes
    clock, processor = [], []
    with tempfile.TemporaryDirectory() as place:
        for pair in range(arguments.pairs):
            one, several = (run(arguments, n, Path(place) / f"{pair}-{n}") for n in (1, count))
            clock.append(one["seconds"] / several["seconds"])
            processor.append(one["processor"] / several["processor"])
            mine, other = several["found"], one["found"]
            apart = float((mine.direction - other.direction).abs().max())
            places = [[found.metadata[name] for name in ("layer", "position")] for found in (mine, other)]
            took = mine.metadata["processes"]["prompts"]
            print(
                f"one: {one['seconds']:.1f} s of the clock, {one['processor']:.1f} s of processor; {count}: "
                f"{several['seconds']:.1f} s, {several['processor']:.1f} s in the one that took most; prompts {took}; "
                f"choice {'the same' if places[0] == places[1] else f'{places[0]} and {places[1]}'}, directions differ "
                f"by {apart:.1e} at most"
            )
    for name, ratios in (("clock", clock), ("processor", processor)):
        print(
            f"{name}: {statistics.median(ratios):.2f} times faster in {count} processes, "
            f"{min(ratios):.2f} to {max(ratios):.2f}"
        )


if __name__ == "__main__":
    main()
