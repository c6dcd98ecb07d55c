"""Cases of the confusion table of `diff --verdict` for GGUF files, both sides quantised by llama.cpp.

    PYTHONPATH=. python benchmarks/verdict_gguf.py NAME=FILE ... --quantize LLAMA_QUANTIZE --out FILE

Of each file the first blocks are kept, in float16; a copy's writers are changed where they are, and both are quantised.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from verdict_cases import ABLATION, FINE_TUNE, PARTIAL, ROWS_KEPT
from verdict_table import outcome

from tests.helpers import other_tools as tools
from weight_edit.difference.diff import diff

_NAMES = {"attn_output": "self_attn.o_proj", "ffn_down": "mlp.down_proj"}
Change = Callable[[tools.Tensors], tools.Tensors]


def gguf_cases(v: torch.Tensor) -> Iterator[tuple[str, str, tuple[str, ...], Change]]:
    """Kind, name, how a right verdict begins, and the change of the writers."""
    yield "edit", "ablation of writers", ABLATION, lambda t: tools.ablated(t, v)
    yield "edit", "ablation, 60%", PARTIAL, lambda t: tools.ablated(t, v, 0.6)
    yield "edit", "kernel of strengths", ("ablation", "partial"), lambda t: tools.heretic(t, v)
    yield "edit", "row norms kept", ROWS_KEPT, lambda t: tools.rows_kept(t, v)
    yield "innocent", "noise", FINE_TUNE, tools.noisy
    yield "innocent", "LoRA of random factors", ("low-rank update", *FINE_TUNE), lambda t: tools.low_rank(t, 16)
    yield "innocent", "another type alone", ("quantisation", "rounding", "undecided", *FINE_TUNE), dict


def quantised(program: Path, source: Path, target: Path, kind: str, *options: str) -> Path:
    """The file in another type."""
    command = [str(program), "--allow-requantize", *options, str(source), str(target), kind, "1"]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return target


def change_in_place(path: Path, change: Change) -> None:
    """The writers of a float16 file made anew where they are."""
    reader = GGUFReader(path, "r+")
    places, tensors = {}, {}
    for tensor in reader.tensors:
        block, _, part = tensor.name.removesuffix(".weight").rpartition(".")
        if tensor.name.endswith(".weight") and part in _NAMES:
            name = f"model.layers.{block.removeprefix('blk.')}.{_NAMES[part]}.weight"
            places[name] = tensor.data
            tensors[name] = torch.tensor(tensor.data)
    for name, made in change(tensors).items():
        places[name][:] = made.to(torch.float16).numpy()
    reader.data.flush()


def main() -> None:
    """Compare, and write a line a case."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--quantize", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--types", default="Q8_0,Q4_K_M")
    parser.add_argument("--only", default="")
    parser.add_argument("--blocks", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for model in given.models:
        name, path = model.split("=", 1)
        layers = 1 + max(int(t.name.split(".")[1]) for t in GGUFReader(path).tensors if t.name.startswith("blk."))
        with tempfile.TemporaryDirectory() as folder:
            pruned = ",".join(str(layer) for layer in range(given.blocks, layers))
            base = quantised(given.quantize, Path(path), Path(folder) / "base.gguf", "F16", "--prune-layers", pruned)
            width = next(t.shape[0] for t in GGUFReader(base).tensors if t.name == "token_embd.weight")
            for case in gguf_cases(tools.unit(int(width), 1)):
                if not given.only or any(part in case[1] for part in given.only.split(",")):
                    _one(name, Path(folder), base, case, given)


def _one(
    name: str, folder: Path, base: Path, case: tuple[str, str, tuple[str, ...], Change], given: argparse.Namespace
) -> None:
    kind, what, right, change = case
    edited = folder / "edited.gguf"
    shutil.copy(base, edited)
    change_in_place(edited, change)
    for quantisation in given.types.split(","):
        a = folder / f"base-{quantisation}.gguf"
        if not a.exists():
            quantised(given.quantize, base, a, quantisation)
        other = {"Q8_0": "Q4_K_M"}.get(quantisation, "Q8_0") if what == "another type alone" else quantisation
        b = quantised(given.quantize, edited, folder / "b.gguf", other)
        began = time.monotonic()
        found = diff(a, b, verdict=True).verdict
        assert found is not None
        row: dict[str, Any] = {"model": name, "form": f"GGUF {quantisation}", "kind": kind, "case": what}
        row |= {"outcome": outcome(kind, right, found), "said": found.said, "confidence": found.confidence}
        row |= {"edited": found.edited, "strength": found.strength, "writers": len(found.writers)}
        line = json.dumps(row | {"seconds": round(time.monotonic() - began, 1)})
        print(line, flush=True)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
