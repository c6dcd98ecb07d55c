"""Bake against `cp -r` of the same checkpoint, alternating in one run: wall time as a ratio, and peak memory.

`python benchmarks/bench_bake.py --help`. The checkpoint is a random Llama in bfloat16, made on the spot.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig

from weight_edit.anatomy import anatomy_of

BAKE = "import sys; from weight_edit import bake; bake(sys.argv[1], sys.argv[2], sys.argv[3])"


def make_checkpoint(folder: Path, gigabytes: float) -> None:
    """A random Llama of about the asked size, in shards of about 500 MB."""
    width, inner, vocabulary = 1536, 4096, 32000
    per_layer = 2 * (4 * width * width + 3 * width * inner)
    layers = max(1, round((gigabytes * 1e9 - 4 * vocabulary * width) / per_layer))
    config = AutoConfig.for_model(
        "llama",
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=12,
        num_key_value_heads=12,
        vocab_size=vocabulary,
        dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )
    config.save_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, shape in anatomy_of(config).shapes.items():
        shards[-1][name] = (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)
        size += shards[-1][name].numel() * 2
        if size > 500e6:
            shards.append({})
            size = 0
    shards = [shard for shard in shards if shard]
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    content = {"metadata": {}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")
    row = torch.nn.functional.normalize(torch.randn(1, width, generator=generator))
    save_file({"direction": row}, folder.parent / "direction.safetensors")


def timed(command: list[str], out: Path) -> tuple[float, float]:
    """Seconds until the output is on disk, and peak memory of the process in MiB."""
    os.sync()
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    os.sync()
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    shutil.rmtree(out)
    return seconds, max(before, after) / 1024


def main() -> None:
    """Print one line per run, then medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=0.5, help="size of the checkpoint (default .5)")
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs (default 5)")
    parser.add_argument("--folder", type=Path, default=None, help="where to work (a temporary folder by default)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        (work / "base").mkdir()
        make_checkpoint(work / "base", options.gigabytes)
        size = sum(path.stat().st_size for path in (work / "base").iterdir())
        bake = [sys.executable, "-c", BAKE, str(work / "base"), str(work / "direction.safetensors"), str(work / "out")]
        copy = ["cp", "-r", str(work / "base"), str(work / "copy")]
        ratios, memory = [], 0.0
        for run in range(options.runs):
            baked, memory = timed(bake, work / "out")
            copied, _ = timed(copy, work / "copy")
            ratios.append(baked / copied)
            print(f"run {run + 1}: bake {baked:.2f} s, cp {copied:.2f} s, ratio {ratios[-1]:.2f}")
        median = statistics.median(ratios)
        print(f"{size / 1e9:.2f} GB: median ratio {median:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), ", end="")
        print(f"peak memory of bake {memory:.0f} MiB (Python, torch and transformers included)")


if __name__ == "__main__":
    main()
