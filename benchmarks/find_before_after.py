"""A whole `find` with selection, of an earlier tree against this one, in turn: ratios of time, and the choices.

    python benchmarks/find_before_after.py BEFORE_TREE MODEL --target FILE --baseline FILE [--pairs N] [-- OPTION ...]

BEFORE_TREE is a checkout of the package. Both trees run the command line in processes of their own, with the same
prompts and options, in turn, so that a busy machine is as busy for both. What follows `--` goes to both as it is. Told
are seconds, processor seconds (which other processes disturb less), their ratios, how many scores were measured, and
whether the choice is the same. No prompt is printed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
SCORES = ("induce", "kl", "bypass")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One run of `find`.

    Attributes:
        seconds, processor: of the process and its children.
        peak: memory of the largest process, in MiB.
        choice: layer and position, or that no candidate keeps the bounds.
        ties: places of candidates that cannot be told from it.
        scores: how many means of each kind were measured.
    """

    seconds: float
    processor: float
    peak: float
    choice: str
    ties: frozenset[tuple[Any, Any]]
    scores: dict[str, int]


def find(tree: Path, options: Sequence[str], folder: Path) -> Found:
    """Run `find` of a tree.

    Raises:
        SystemExit: it failed otherwise than by finding no candidate within the bounds.
    """
    out = folder / "directions.safetensors"
    command = [sys.executable, "-m", "weight_edit", "find", *options, "--out", str(out), "--overwrite", "--json", "-q"]
    said = folder / "said.json"
    began = time.perf_counter()
    with said.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdout=file,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        error = process.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        raise SystemExit(f"{tree}: exit code {process.returncode}\n{error}")
    document = json.loads(said.read_text(encoding="utf-8"))
    place = "none keeps the bounds"
    if process.returncode == 0:
        place = f"layer {document['layer']}, position {document['position']}"
    rows = document["scores"]
    return Found(
        seconds=seconds,
        processor=used.ru_utime + used.ru_stime,
        peak=used.ru_maxrss / 1024,
        choice=place,
        ties=frozenset((tie["layer"], tie["position"]) for tie in (document.get("certainty") or {}).get("ties", ())),
        scores={name: sum(row[name] is not None for row in rows) for name in SCORES},
    )


def told(name: str, ratios: Sequence[float]) -> str:
    """The median of ratios with the least and the greatest."""
    return f"{name} {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("model")
    parser.add_argument("--target", required=True, type=Path)
    parser.add_argument("--baseline", required=True, type=Path)
    parser.add_argument("--n-train", default="32")
    parser.add_argument("--n-validation", default="16")
    parser.add_argument("--pairs", type=int, default=1)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    rest = sys.argv[end + 1 :]
    given = parser.parse_args(sys.argv[1:end])
    model = str(Path(given.model).resolve()) if Path(given.model).exists() else given.model
    options = [model, "--target", str(given.target.resolve()), "--baseline", str(given.baseline.resolve())]
    options += ["--n-train", given.n_train, "--n-validation", given.n_validation, *rest]
    trees = {"before": given.before.resolve(), "after": HERE}
    runs: dict[str, list[Found]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as folder:
        for tree in trees.values():
            # Compiled files and the proof of the architecture are made once.
            command = [sys.executable, "-m", "weight_edit", "inspect", model]
            environment = {**os.environ, "PYTHONPATH": str(tree)}
            subprocess.run(command, check=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        for _ in range(given.pairs):
            for name, tree in trees.items():
                found = find(tree, options, Path(folder))
                runs[name].append(found)
                counts = ", ".join(f"{count} {score}" for score, count in found.scores.items())
                print(
                    f"{name}: {found.seconds:.1f} s, {found.processor:.1f} s of processors, {found.peak:.0f} MiB; "
                    f"{counts}; {found.choice}, {len(found.ties)} ties",
                    flush=True,
                )
    pairs = list(zip(runs["before"], runs["after"], strict=True))
    print(told("time after / before", [after.seconds / before.seconds for before, after in pairs]))
    print(told("processor time after / before", [after.processor / before.processor for before, after in pairs]))
    same = all(before.choice == after.choice for before, after in pairs)
    print(f"choice {'the same' if same else 'another'}")
    alike = all(before.ties == after.ties for before, after in pairs)
    print(f"ties {'the same' if alike else 'not the same'}")


if __name__ == "__main__":
    main()
