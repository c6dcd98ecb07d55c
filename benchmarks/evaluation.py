"""`evaluate` of an edited model against its base, of this working tree against another one: time and peak memory.

    python benchmarks/evaluation.py TREE EDITED BASE REFUSED ANSWERED [--limit N] [--tokens N] [--pairs N]

TREE is a checkout of this repository, of an earlier commit for instance. Both evaluate the same models on the same
prompts in turn, each in a process of its own. Told are seconds on the clock and of the processor (which other processes
disturb less) with their ratios, the peak memory of each, the figures of each, and how many answers are equal. No prompt
and no answer is printed.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from timing import ROOT, Compared, Run, Side, alternate, peak, spread


def side(tree: Path, options: argparse.Namespace, folder: Path, name: str) -> Side:
    """The command of a tree; its document and answers are written to the folder."""
    command = [sys.executable, "-m", "weight_edit", "evaluate", options.edited, "--against", options.base]
    command += ["--refused", options.refused, "--answered", options.answered, "--limit", str(options.limit)]
    command += ["--max-new-tokens", str(options.tokens), "--no-card", "--quiet", "--json", "--overwrite"]
    command += ["--answers", str(folder / f"{name}.jsonl")]
    # Python looks for the package in its folder first. What the command prints is its document.
    script = 'cd "$1" && out="$2" && shift 2 && exec "$@" > "$out"'
    place = str(tree.resolve())
    return Side(
        name, ["env", f"PYTHONPATH={place}", "sh", "-c", script, "sh", place, str(folder / f"{name}.json"), *command]
    )


def figures(document: dict[str, Any]) -> str:
    """The rates and divergences of a document."""
    sets = ", ".join(f"{name} refused {found['refusal']['value']:.3f}" for name, found in document["sets"].items())
    apart = ", ".join(f"{name} {document[name]['mean']:.5f}" for name in ("divergence", "continuation"))
    own = document["own_answers"]
    return f"{sets}; {apart}; own answers {own['mean']:.5f}, the base's {own['base']['mean']:.5f}"


def answers(path: Path) -> list[tuple[str, str]]:
    """Set and text of every answer."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["set"], row["answer"]) for row in rows]


def told(name: str, runs: tuple[Run, ...]) -> str:
    """A line of a side's measurements."""
    wall, processor = (spread([getattr(run, of) for run in runs]) for of in ("seconds", "processor"))
    return f"{name}: {wall} s, {processor} s of the processor, at most {peak(runs):.0f} MiB"


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tree", type=Path)
    for name in ("edited", "base", "refused", "answered"):
        parser.add_argument(name)
    parser.add_argument("--limit", type=int, default=24, help="prompts of each set")
    parser.add_argument("--tokens", type=int, default=24, help="of an answer, at most")
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        before, now = (side(tree, options, folder, name) for tree, name in ((options.tree, "before"), (ROOT, "now")))
        found: Compared = alternate(before, now, options.pairs, folder / "cache", warm_up=False)
        print(told("before", found.first))
        print(told("now", found.second))
        print(f"ratio of wall time: {found.ratio}")
        processor = [one.processor / other.processor for one, other in zip(found.first, found.second, strict=True)]
        print(f"ratio of processor time: {spread(processor)}")
        for name in ("before", "now"):
            print(f"{name}: {figures(json.loads((folder / f'{name}.json').read_text(encoding='utf-8')))}")
        pairs = list(zip(answers(folder / "before.jsonl"), answers(folder / "now.jsonl"), strict=True))
        print(f"equal answers of the edited model: {sum(one == other for one, other in pairs)} of {len(pairs)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
