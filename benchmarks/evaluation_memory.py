"""Peak memory and processor time of `verify` in this working tree, in another one, and with `--offload`, in one run.

`python benchmarks/evaluation_memory.py BASE EDITED [--before TREE]`; EDITED is an edit of BASE, of which only a copy of
the small files is written to. Memory is that of the process (see `sampled`): RssAnon is what it holds, VmRSS has the
pages of mapped files too, which others can have back. Each is told above the bare imports, and in sizes of the model.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sampled import Sampled, run_sampled

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = "import weight_edit.verification.verify, weight_edit.verification.model_checks"
TOKENIZER = f"""
{IMPORTS}
import sys
from weight_edit.hub.source import resolve
from weight_edit.runtime.loading import chat_format
chat_format(resolve(sys.argv[1]))
"""


def environment(tree: Path, cache: Path) -> Mapping[str, str]:
    """A working tree's package."""
    return {**os.environ, "PYTHONPATH": str(tree), "WEIGHT_EDIT_CACHE": str(cache)}


def copied(edited: Path, folder: Path) -> Path:
    """The edited model with its shards linked, so that its card and manifest stay as they are."""
    for path in edited.rglob("*"):
        place = folder / path.relative_to(edited)
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            shutil.copyfile(path, place) if path.stat().st_size < 1 << 24 else os.link(path, place)
    return folder


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("edited", type=Path)
    parser.add_argument("--before", type=Path, default=None, help="a working tree of an earlier commit")
    parser.add_argument("--limit", type=int, default=16, help="prompts (default 16)")
    options = parser.parse_args()
    options.base, options.edited = options.base.resolve(), options.edited.resolve()
    size = sum(path.stat().st_size for path in options.base.glob("*.safetensors")) / (1 << 20)
    print(f"weights {size:.0f} MiB, {options.limit} prompts, peaks in MiB\n")
    print("| what | RssAnon | above imports | in models | VmRSS | above imports | in models | s | processor s |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=options.edited.parent) as name:
        edited, cache = copied(options.edited, Path(name) / "edited"), Path(name) / "cache"
        verify = ["-m", "weight_edit", "verify", str(options.base), str(edited), "--quiet", "--no-card"]
        verify += ["--limit", str(options.limit)]
        bare: Sampled | None = None
        cases = [
            ("imports", ROOT, ["-c", IMPORTS]),
            ("imports and tokenizer", ROOT, ["-c", TOKENIZER, str(options.base)]),
        ]
        cases += [("verify before", options.before, verify)] if options.before is not None else []
        cases += [("verify", ROOT, verify), ("verify --offload", ROOT, [*verify, "--offload"])]
        for what, tree, command in cases:
            # Python looks for a package in the folder that it is started in before all others.
            found = run_sampled([sys.executable, *command], environment=environment(tree, cache), folder=tree)
            if found.code:
                sys.exit(f"{what}: exit code {found.code}\n{found.out}{found.err}")
            bare = bare or found
            anon, rss = found.anon_mib - bare.anon_mib, found.rss_mib - bare.rss_mib
            print(
                f"| {what} | {found.anon_mib:.0f} | {anon:.0f} | {anon / size:.2f} | {found.rss_mib:.0f} | {rss:.0f} | "
                f"{rss / size:.2f} | {found.seconds:.0f} | {found.processor:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
