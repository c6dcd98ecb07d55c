"""Damaged packs: no traceback, nothing written outside, nothing left.

    PYTHONPATH=. python benchmarks/fuzz_packs.py [--count 300] [--seed 0]

Half of them have random bytes changed, cut or repeated; of the others the account, the manifest or the way back says
something else, in valid JSON and compressed as it must be. Exit code 1 if one of them does what it must not.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from weight_edit.baking.bake import bake
from weight_edit.checkpoint.tensor.header import HeaderEntry, header_bytes, read_header
from weight_edit.directions.directions import Directions
from weight_edit.errors import WeightEditError
from weight_edit.packs.apply import apply
from weight_edit.packs.compression import compressed, expanded
from weight_edit.packs.pack import pack
from weight_edit.packs.undo import undo

STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 2**31, 2**63, 10**300, 0.5, "", "..", "../../x", "/etc/passwd", "a\0b", "\x1b[31m"),
    *([], {}, [[]], {"a": 1}, "x" * 10000),
)


def damaged(raw: bytes, draw: random.Random) -> bytes:
    """The bytes with something changed, cut off or put in."""
    found = bytearray(raw)
    for _ in range(draw.choice((1, 1, 2, 20))):
        at = draw.randrange(len(found))
        kind = draw.randrange(4)
        if kind == 0:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del found[at : at + draw.choice((1, 8, 1000))]
        elif kind == 2:
            found[at:at] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 8, 100))))
        else:
            found[at : at + 8] = draw.choice((bytes(8), b"\xff" * 8, (1 << 40).to_bytes(8, "little")))[
                : len(found) - at
            ]
        if not found:
            found = bytearray(b"x")
    return bytes(found)


def changed(value: Any, draw: random.Random) -> Any:
    """A JSON value with one value in it replaced, removed or renamed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        if draw.random() < 0.1:
            return {other: each for other, each in value.items() if other != key}
        if draw.random() < 0.05:
            return {("../x" if other == key else other): each for other, each in value.items()}
        return {**value, key: changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        at = draw.randrange(len(value))
        return [*value[:at], changed(value[at], draw), *value[at + 1 :]]
    if type(value) is int and draw.random() < 0.5:
        return value + draw.choice((-1, 1, 8, -8, 1000))
    return draw.choice(STRANGE)


def lying(raw: bytes, draw: random.Random) -> bytes:
    """A pack of which one text says something else."""
    import io

    header = read_header(io.BytesIO(raw), len(raw), "pack")
    tensors = {info.name: raw[info.begin : info.end] for info in header.tensors}
    name = draw.choice(("pack", "pack", "manifest"))
    said = json.loads(expanded(tensors[name], 10**8, name))
    for _ in range(draw.choice((1, 1, 3))):
        said = changed(said, draw)
    tensors[name] = compressed(json.dumps(said).encode())
    entries = [
        HeaderEntry(info.name, info.dtype, (len(tensors[info.name]),) if info.dtype == "U8" else info.shape)
        for info in header.tensors
    ]
    return header_bytes(entries, header.metadata) + b"".join(tensors[info.name] for info in header.tensors)


def main() -> None:
    """Try so many packs, each in both verbs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    ends: Counter[str] = Counter()
    problems = 0
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        rows = torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(0)))
        bake("organism", Directions(rows), top / "edited")
        raw = pack(top / "edited", top / "whole.safetensors", reversible=True).path.read_bytes()
        before = {"edited", "whole.safetensors", "pack.safetensors"}
        for number in range(given.count):
            (top / "pack.safetensors").write_bytes((damaged if number % 2 else lying)(raw, draw))
            for verb in (apply, undo):
                arguments = (top / "pack.safetensors",) if verb is apply else (top / "edited", top / "pack.safetensors")
                more = {"base": "organism"} if verb is apply else {}
                try:
                    verb(*arguments, top / "out", **more)
                    end = "made"
                except WeightEditError as error:
                    end = type(error).__name__
                    if not str(error).isprintable():
                        end = "UNPRINTABLE"
                except Exception:  # noqa: BLE001 (any of them is what is looked for)
                    traceback.print_exc()
                    end = "TRACEBACK"
                left = {each.name for each in top.iterdir()} - before - {"out"}
                if left or ((top / "out").exists() and end != "made"):
                    end = f"LEFT {sorted(left)}"
                shutil.rmtree(top / "out", ignore_errors=True)
                problems += end.isupper() or end.startswith("LEFT")
                ends[f"{verb.__name__}: {end}"] += 1
    for end, count in sorted(ends.items()):
        print(f"{count:5} {end}")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
