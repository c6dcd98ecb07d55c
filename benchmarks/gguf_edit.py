"""Every edited tensor of a GGUF file: seconds of the processor, and what is left by the decoder of the package gguf.

    OMP_NUM_THREADS=1 python benchmarks/gguf_edit.py FILE.gguf [--directions FILE] [--only PART]

The tensors are those that `bake` edits, an ablation of the directions or of a random one, made as `bake` makes them but
in memory. For each kind of tensor and each type of GGML stand: how many tensors and numbers; nanoseconds of the
processor for a number, without and with the account of what rounding does; what is left of `R^T W` in all of them where
each number goes to the nearest on its grid, the same where the errors are balanced, and then in the worst tensor; the
error of storing in sizes of the edit, of both; how many blocks have new scales; and how many bytes differ. Norms are of
numbers as the package decodes them. Times are of one thread and for comparison within one run.
"""

import argparse
import os
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from weight_edit.baking.bake import steps_of
from weight_edit.baking.prepare import EditOptions, PreparedEdit, prepare
from weight_edit.baking.tensors import ROUNDINGS
from weight_edit.checkpoint.tensor.edited import Rounding, TensorWriter
from weight_edit.checkpoint.tensor.scratch import keep_freed_memory, scratch
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.hub.source import resolve

BALANCED, NEAREST = ROUNDINGS
_ROWS = 4096  # rows decoded at a time: of a vocabulary whose numbers would take half a gigabyte

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One edited tensor under one rounding.

    Attributes:
        numbers, changed: how many numbers it has, and how many of its bytes differ from the source's.
        before, after: `|R^T W|` of the source and of the result.
        error, size: `|W' - E|` and `|E - W|`, with E the edit that is not rounded.
        seconds, accounted: of the processor, without and with the account that `bake` keeps.
        rescaled: blocks with new scales.
    """

    numbers: int
    changed: int
    before: float
    after: float
    error: float
    size: float
    seconds: float
    accounted: float
    rescaled: int


def random_directions(width: int) -> DirectionRows:
    """One random unit vector."""
    row = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    return DirectionRows(row / np.linalg.norm(row))


def decoded(raw: Bytes, kind: str, cols: int, first: int, last: int) -> NDArray[np.float64]:
    """The numbers of some rows, (rows, cols), by the package gguf."""
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rows = raw.reshape(-1, cols // block * size)[first:last]
    found: NDArray[Any] = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])
    return found.astype(np.float64).reshape(last - first, cols)


def compared(edited: TensorWriter, kind: str, shape: tuple[int, ...], raw: Bytes, out: Bytes) -> dict[str, float]:
    """The norms of `Measured`, in two passes: what the edit takes off a row needs all of them."""
    assert edited.map is not None
    left, right, cols = edited.map.left, edited.map.right, shape[-1]
    rows = int(np.prod(shape[:-1]))
    if rows != shape[0]:
        raise SystemExit(f"{edited.source.name}: stacks of matrices are not measured here")
    sums = np.zeros((right.shape[1], cols))
    after = np.zeros_like(sums)
    spans = [(first, min(first + _ROWS, rows)) for first in range(0, rows, _ROWS)]
    found = dict.fromkeys(("before", "after", "error", "size"), 0.0)
    if edited.along_rows:
        for first, last in spans:
            sums += right[first:last].T @ decoded(raw, kind, cols, first, last)
            after += right[first:last].T @ decoded(out, kind, cols, first, last)
        found["before"], found["after"] = float(np.vdot(sums, sums)), float(np.vdot(after, after))
    for first, last in spans:
        was, now = (decoded(each, kind, cols, first, last) for each in (raw, out))
        if edited.along_rows:
            change = -left[first:last] @ sums
        else:
            own, mine = was @ right, now @ right
            found["before"] += float(np.vdot(own, own))
            found["after"] += float(np.vdot(mine, mine))
            change = -own @ left.T
        found["size"] += float(np.vdot(change, change))
        now -= was
        now -= change
        found["error"] += float(np.vdot(now, now))
    return {name: value**0.5 for name, value in found.items()}


def measured(edited: TensorWriter, kind: str, shape: tuple[int, ...], raw: Bytes) -> Measured:
    """Edit one tensor, twice."""

    def read(name: str, begin: int, into: Bytes) -> None:
        np.copyto(into, raw[begin : begin + into.size])

    name = edited.source.name
    began = time.process_time()
    for _ in edited.blocks(name, read, None, scratch):
        pass
    seconds = time.process_time() - began
    rounding = Rounding(edited)
    out = np.empty_like(raw)
    accounted, at = 0.0, 0
    stream = edited.blocks(name, read, rounding, scratch)
    while True:
        began = time.process_time()
        block = next(stream, None)
        accounted += time.process_time() - began
        if block is None:
            break
        out[at : at + block.size] = block
        at += block.size
    return Measured(
        numbers=int(np.prod(shape)),
        changed=int(np.count_nonzero(out != raw)),
        seconds=seconds,
        accounted=accounted,
        rescaled=rounding.loss.rescaled,
        **compared(edited, kind, shape, raw, out),
    )


def kind_of(name: str) -> str:
    """A tensor's name without the number of its block."""
    return re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight")


def prepared(file: Path, directions: str | None, rounding: str) -> PreparedEdit:
    """An ablation of one file, ready."""
    rows: DirectionRows | str = directions if directions is not None else random_directions(width_of(file))
    return prepare(resolve(str(file)), steps_of(rows), EditOptions(rounding=rounding))


def width_of(file: Path) -> int:
    """The width of a file's residual stream."""
    reader = gguf.GGUFReader(file)
    name = str(reader.fields["general.architecture"].contents())
    return int(reader.fields[f"{name}.embedding_length"].contents())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--directions", help="of `find`; a random direction without")
    parser.add_argument("--only", default="", metavar="PART", help="of the names of tensors")
    options = parser.parse_args()
    keep_freed_memory()
    found: dict[tuple[str, str], dict[str, list[Measured]]] = defaultdict(lambda: defaultdict(list))
    for rounding in (NEAREST, BALANCED):
        edit = prepared(options.file, options.directions, rounding)
        for edited in edit.tensors.edits:
            name = edited.source.name
            info = edit.checkpoint.info(name)
            if options.only not in name or not edited.source.lossy:
                continue
            raw = np.frombuffer(b"".join(edit.checkpoint.raw(name)), np.uint8)
            row = measured(edited, info.dtype, info.shape, raw)
            found[kind_of(name), info.dtype][rounding].append(row)
    print(f"{options.file.name}: load {os.getloadavg()[0]:.1f}\n")
    print(
        "| tensor | type | tensors | numbers | ns per number | with the account | left, nearest | left, balanced | "
        "worst, balanced | error, nearest | error, balanced | new scales | bytes changed |"
    )
    print("|" + "---|" * 13)
    for (name, kind), by_rounding in found.items():
        near, rows = (by_rounding[rounding] for rounding in (NEAREST, BALANCED))
        numbers = sum(row.numbers for row in rows)
        per = [1e9 * sum(getattr(row, each) for row in rows) / numbers for each in ("seconds", "accounted")]
        errors = [_share(some, "error", "size") for some in (near, rows)]
        worst = max(row.after / row.before for row in rows)
        print(
            f"| {name} | {kind} | {len(rows)} | {numbers:,} | {per[0]:.0f} | {per[1]:.0f} | "
            f"{_share(near, 'after', 'before'):.3%} | {_share(rows, 'after', 'before'):.3%} | {worst:.3%} | "
            f"{errors[0]:.2f} | {errors[1]:.2f} | {sum(row.rescaled for row in rows):,} | "
            f"{sum(row.changed for row in rows):,} |"
        )
    rows = [row for by_rounding in found.values() for row in by_rounding[BALANCED]]
    near = [row for by_rounding in found.values() for row in by_rounding[NEAREST]]
    spent = 1e9 * sum(row.seconds for row in rows) / sum(row.numbers for row in rows)
    print(
        f"\nAll: {_share(rows, 'after', 'before'):.3%} left, {_share(near, 'after', 'before'):.3%} rounded to nearest; "
        f"the worst tensor {max(row.after / row.before for row in rows):.3%}; {spent:.0f} ns per number."
    )


def _share(rows: list[Measured], part: str, whole: str) -> float:
    """The root of a sum of squares over that of another."""
    squares = [sum(getattr(row, name) ** 2 for row in rows) for name in (part, whole)]
    return float((squares[0] / squares[1]) ** 0.5)


if __name__ == "__main__":
    main()
