"""What rounding leaves of an edit, in every quantised format: a Markdown table.

A writer of random numbers, or those of a model, is quantised, a direction is removed from it as from a writer with a
norm behind it, whose gains make the direction uneven, and the result is rounded to the format in three ways: to
nearest; up or down row by row in their order, as an earlier release did; and as this package does. For each, what is
left of the direction is given, and how far the stored numbers are from the wanted ones; of the last, the time per
number on one core.

    python benchmarks/quantized_rounding.py
    python benchmarks/quantized_rounding.py --model GEMMA_3_FOLDER
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.ggml_samples import random_blocks
from tests.helpers.quantiser_models import to_4bit, to_8bit, to_nvfp4
from tests.helpers.quantized_samples import Projection, infos, reader, to_fp8, to_mxfp4
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.quantized.ggml import KINDS, Ggml
from weight_edit.checkpoint.quantized.packing import pack
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding
from weight_edit.checkpoint.tensor.scratch import scratch
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES

DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
NAME = "w.weight"

Tensors = dict[str, torch.Tensor]
Bytes = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Stored:
    """A quantised writer: its storage and the bytes of its tensors."""

    storage: Coded
    raw: Bytes


def of_tensors(tensors: Tensors, name: str = NAME, axis: int = -2, **config: object) -> Stored:
    """The writer that some tensors hold."""
    raw = {key: t.contiguous().reshape(-1).view(torch.uint8).numpy().copy() for key, t in tensors.items()}
    headers = infos(**{key: (DTYPES[t.dtype], tuple(t.shape)) for key, t in tensors.items()})
    storage = storage_of(name, headers, config, axis, lambda key: raw[key].tobytes())
    assert isinstance(storage, Coded)
    return Stored(storage, raw)


def fp8(weight: torch.Tensor, block: tuple[int, int]) -> Stored:
    """FP8 with a scale for each block."""
    rows, cols = weight.shape
    size = (min(block[0], rows), min(block[1], cols))
    codes, scale = to_fp8(weight, size, torch.float32)
    if size == (rows, cols):
        scale = scale.reshape(())
    config = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    return of_tensors({NAME: codes, f"{NAME}_scale_inv": scale}, **config)


def mxfp4(weight: torch.Tensor) -> Stored:
    """MXFP4, as one expert."""
    blocks, scales = to_mxfp4(weight[None])
    tensors = {"w_blocks": blocks.reshape(1, weight.shape[0], -1, 16), "w_scales": scales}
    return of_tensors(tensors, "w", axis=1)


def beside(tensors: Tensors) -> Stored:
    """A weight with its scales in other tensors of the module."""
    return of_tensors({f"w.{name}": tensor for name, tensor in tensors.items()})


def integers(weight: torch.Tensor, bits: int, group: int) -> Stored:
    """Symmetric integers of compressed-tensors: packed ones by groups, or bytes by rows."""
    top = 2 ** (bits - 1) - 1
    groups = weight.reshape(weight.shape[0], -1, group)
    scale = (groups.abs().amax(-1) / top).bfloat16()
    codes = (groups / scale.float()[..., None]).round().clamp(-top - 1, top).flatten(1)
    settings = {"num_bits": bits, "type": "int", "symmetric": True, "group_size": group}
    settings["strategy"] = "group" if bits == 4 else "channel"
    form = "pack-quantized" if bits == 4 else "int-quantized"
    config = {"quant_method": "compressed-tensors", "format": form, "config_groups": {"g": {"weights": settings}}}
    if bits == 8:
        return of_tensors({NAME: codes.to(torch.int8), f"{NAME}_scale": scale}, **config)
    words = torch.from_numpy(pack((codes + 8).numpy().astype(np.uint8), 4).view(np.int32))
    shape = torch.tensor(weight.shape)
    return of_tensors({f"{NAME}_packed": words, f"{NAME}_scale": scale, f"{NAME}_shape": shape}, **config)


def ggml(weight: torch.Tensor, kind: str) -> Stored:
    """GGML's blocks with random codes: the numbers are not the writer's, whose shape they have."""
    rows, cols = weight.shape
    return Stored(Ggml("w", kind, (rows, cols)), {"w": random_blocks(kind, rows, cols, real=True)})


FORMATS: dict[str, Callable[[torch.Tensor], Stored]] = {
    "FP8, blocks of 128 x 128": lambda w: fp8(w, (128, 128)),
    "FP8, by row": lambda w: fp8(w, (1, 1 << 30)),
    "FP8, by tensor": lambda w: fp8(w, (1 << 30, 1 << 30)),
    "MXFP4": mxfp4,
    "NVFP4 (ModelOpt)": lambda w: beside(to_nvfp4(w, divides=False)),
    "NVFP4 (compressed-tensors)": lambda w: beside(to_nvfp4(w, divides=True)),
    "INT4, groups of 128": lambda w: integers(w, 4, 128),
    "INT8, by row": lambda w: integers(w, 8, w.shape[1]),
    "NF4": lambda w: beside(to_4bit(w, "nf4", nested=False)),
    "NF4, double quantised": lambda w: beside(to_4bit(w, "nf4", nested=True)),
    "FP4 (bitsandbytes)": lambda w: beside(to_4bit(w, "fp4", nested=False)),
    "INT8 (bitsandbytes)": lambda w: beside(to_8bit(w)),
    **{f"GGML {kind}": lambda w, kind=kind: ggml(w, kind) for kind in KINDS},
}


@dataclass(frozen=True)
class Case:
    """A writer and the gains of the norm behind it.

    Attributes:
        weight: float32, (out, in).
        gains: (out,).
    """

    weight: torch.Tensor
    gains: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """What was found for one writer in one format.

    Attributes:
        left: share of the direction that is left by nearest, in the order of the rows, and by the package.
        error: of the stored numbers against the wanted ones, over their size: by nearest and by the package.
        rescaled: share of the numbers in blocks whose scale was made anew, of the package's.
        time: in seconds, of the package's; numbers: how many.
    """

    left: tuple[float, float, float]
    error: tuple[float, float]
    rescaled: int
    time: float
    numbers: int


def in_order_of_rows(stored: Stored, wanted: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The numbers rounded row by row in their order, with the weight d / |R|^2."""
    target = stored.storage
    strip = {part: raw.copy() for part, raw in target.load(reader(stored.raw), 0, 0, target.rows).items()}
    peak = float(np.abs(wanted).max())
    target.fit(wanted, 0, strip, peak)
    found = target.neighbours(wanted, 0, strip)
    error, gap = found.error.astype(np.float64), found.gap.astype(np.float64)
    sums = np.zeros(target.cols)
    high = np.empty(error.shape, np.bool_)
    weight = len(right) / float(right @ right)
    for row, own in enumerate(right):
        # Whether error + gap is better than error, for error^2 + weight * (sum + own * error)^2.
        slope = (2 * error[row] + gap[row]) * (1 + weight * own * own) + 2 * weight * own * sums
        high[row] = slope * gap[row] < 0
        sums += own * (error[row] + gap[row] * high[row])
    target.put_codes(found.chosen(high), 0, strip)
    return target.decode(strip, target.rows, 0, target.cols)


def measured(case: Case, make: Callable[[torch.Tensor], Stored], seed: int) -> Row:
    """One writer in one format."""
    stored = make(case.weight)
    target = stored.storage
    v = np.random.default_rng(seed).standard_normal(target.rows) * case.gains
    v /= np.linalg.norm(v)
    read = reader(stored.raw)
    before = target.decode(target.load(read, 0, 0, target.rows), target.rows, 0, target.cols)
    wanted = before - np.outer(v, v @ before)
    found = {}
    begin = time.process_time()
    edit = BalancedTensor(source=target, target=target, map=Projection(v[:, None]), along_rows=True)
    for _ in edit.strips(read, scratch):
        pass
    seconds = time.process_time() - begin
    for kind in (EditedTensor, BalancedTensor):
        edit = kind(source=target, target=target, map=Projection(v[:, None]), along_rows=True)
        rounding = Rounding(edit)
        for strip in edit.strips(read, scratch):
            rounding.add(strip)
        found[kind] = rounding.loss
    old = in_order_of_rows(stored, wanted, v)
    nearest, balanced = found[EditedTensor], found[BalancedTensor]
    return Row(
        left=(nearest.left, float(np.linalg.norm(v @ old) / np.linalg.norm(v @ before)), balanced.left),
        error=(nearest.error, balanced.error),
        rescaled=balanced.rescaled,
        time=seconds,
        numbers=before.size,
    )


def random_cases(rows: int, cols: int, spread: float) -> Iterator[Case]:
    """One random writer with gains that are log-normal."""
    generator = np.random.default_rng(7)
    weight = torch.from_numpy(generator.standard_normal((rows, cols)).astype(np.float32)) / cols**0.5
    yield Case(weight, np.exp(spread * generator.standard_normal(rows)))


def model_cases(folder: Path, layers: int) -> Iterator[Case]:
    """The writers of some layers of a Gemma 3 in bfloat16, with the gains of the norms behind them."""
    checkpoint = Checkpoint.open(folder)
    depth = int(checkpoint.config["num_hidden_layers"])
    for layer in np.linspace(0, depth - 1, layers).astype(int):
        prefix = f"model.layers.{layer}."
        for writer, norm in (
            ("self_attn.o_proj", "post_attention_layernorm"),
            ("mlp.down_proj", "post_feedforward_layernorm"),
        ):
            weight = torch.from_numpy(checkpoint.values(f"{prefix}{writer}.weight").astype(np.float32))
            yield Case(weight, 1 + checkpoint.values(f"{prefix}{norm}.weight"))


def table(title: str, cases: list[Case], formats: list[str]) -> None:
    """Print one table, with the largest of what is left among the writers, and the mean of all else."""
    gains = np.concatenate([np.abs(case.gains) / np.linalg.norm(case.gains) * len(case.gains) ** 0.5 for case in cases])
    print(f"\n{title}: {len(cases)} writers; largest gain {gains.max():.1f} of their root mean square\n")
    print(
        "| format | left: nearest | rows in order | the package | error: nearest | package | new scales | ns/number |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in formats:
        rows = [measured(case, FORMATS[name], seed) for seed, case in enumerate(cases)]
        left = np.max([row.left for row in rows], axis=0)
        error = np.mean([row.error for row in rows], axis=0)
        ns = 1e9 * sum(row.time for row in rows) / sum(row.numbers for row in rows)
        made = sum(row.rescaled for row in rows)
        shares = " | ".join(f"{100 * share:.3g} %" for share in left)
        print(
            f"| {name} | {shares} | {100 * error[0]:.2g} % | {100 * error[1]:.2g} % | {made} | {ns:.0f} |", flush=True
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a Gemma 3 in bfloat16, whose writers and gains are taken")
    parser.add_argument("--layers", type=int, default=3, help="how many of its layers (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1152, help="outputs of the random writer")
    parser.add_argument("--cols", type=int, default=4096, help="its inputs")
    parser.add_argument("--formats", nargs="+", default=list(FORMATS), metavar="FORMAT", help="only these")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        for title, spread in (("Random, all gains 1", 0.0), ("Random, log-normal gains", 1.0)):
            table(title, list(random_cases(options.rows, options.cols, spread)), options.formats)
        if options.model:
            table(f"Writers of {options.model.name}", list(model_cases(options.model, options.layers)), options.formats)


if __name__ == "__main__":
    main()
