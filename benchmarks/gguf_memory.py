"""Peak memory of baking GGUF files of the same width and more and more blocks.

    python benchmarks/gguf_memory.py FILE.gguf [--times 1 4] [--directions FILE] [--folder FOLDER]

Of the file others are made, with its blocks several times over under new numbers and all else as it is. Each is baked
twice, the second time measured: by then the anatomy is proven, which takes a process of its own. RssAnon is what the
process holds, VmRSS has the pages of mapped files too (see `sampled`).
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf_edit import random_directions, width_of
from safetensors.numpy import save_file
from sampled import run_sampled

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"^blk\.(\d+)\.")
_NOT_COPIED = ("GGUF.", "general.architecture", "general.alignment")


def _copied(reader: gguf.GGUFReader, times: int) -> Iterator[tuple[Any, str]]:
    """The tensors, those of a block under each of its numbers."""
    blocks = 1 + max(int(found[1]) for found in map(_BLOCK.match, (each.name for each in reader.tensors)) if found)
    for turn in range(times):
        for tensor in reader.tensors:
            found = _BLOCK.match(tensor.name)
            if found is not None:
                yield tensor, f"blk.{turn * blocks + int(found[1])}.{tensor.name[found.end() :]}"
            elif not turn:
                yield tensor, tensor.name


def repeated(source: Path, times: int, path: Path) -> int:
    """Write a file with so many times the blocks; returns how many these are."""
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    count = f"{architecture}.block_count"
    blocks = int(reader.fields[count].contents()) * times
    writer = gguf.GGUFWriter(path, architecture)
    for key, entry in reader.fields.items():
        if not key.startswith(_NOT_COPIED):
            value = blocks if key == count else entry.contents()
            kinds = (*entry.types, None)
            writer.add_key_value(key, value, kinds[0], kinds[1] if kinds[0] == gguf.GGUFValueType.ARRAY else None)
    for tensor, name in _copied(reader, times):
        writer.add_tensor(name, np.asarray(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return blocks


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--directions", type=Path, help="of `find`; a random direction without")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder by default)")
    options = parser.parse_args()
    print("| blocks | file (MB) | RssAnon (MiB) | VmRSS (MiB) | s | processor s |\n|---|---|---|---|---|---|")
    peaks = []
    for times in options.times:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            work = Path(name)
            file, directions = work / "model.gguf", options.directions
            blocks = repeated(options.file, times, file)
            if directions is None:
                directions = work / "direction.safetensors"
                save_file({"direction": random_directions(width_of(file)).rows}, directions)
            bake = [sys.executable, "-m", "weight_edit", "bake", str(file), "--directions", str(directions)]
            bake += ["--out", str(work / "out"), "--overwrite", "--quiet"]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "WEIGHT_EDIT_CACHE": str(work / "cache")}
            for _ in range(2):
                found = run_sampled(bake, environment=environment)
                if found.code:
                    sys.exit(f"exit code {found.code}\n{found.err}")
            peaks.append(found.anon_mib)
            print(
                f"| {blocks} | {file.stat().st_size / 1e6:.0f} | {found.anon_mib:.0f} | {found.rss_mib:.0f} | "
                f"{found.seconds:.0f} | {found.processor:.0f} |",
                flush=True,
            )
    print(f"\nRssAnon, largest over smallest: {max(peaks) / min(peaks):.2f}.")


if __name__ == "__main__":
    main()
