"""One edit of one model in several formats: what is left, how far edits are from their bases and from one another.

    python benchmarks/edit_in_formats.py DIRECTIONS PROMPTS --pair NAME BASE EDITED --pair NAME BASE EDITED ...
        [--limit N] [--tokens N] [--dtype NAME]

Each pair is a model, a folder or a GGUF file, and what `bake` made of it with the directions. Told are the tensors that
the edit writes: `|R^T W'| / |R^T W|` over all of them and in the worst one, as they are stored. Then KL divergences, in
nats, over the first tokens of the greedy answers of the first pair's base, which all models read as given: of each edit
from its own base, with a 95% interval over prompts, of each base from the first one, and of each edit from every other.
GGUF files are read by transformers. No prompt and no answer is printed.
"""

import argparse
import gc
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from weight_edit.baking.bake import steps_of
from weight_edit.baking.prepare import EditOptions, prepare
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.along import Along
from weight_edit.checkpoint.tensor.edited import TensorWriter
from weight_edit.evaluation.continuation import own_answers
from weight_edit.evaluation.divergence import mean_interval
from weight_edit.evaluation.kl import kl_divergence
from weight_edit.hub.source import resolve
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import load
from weight_edit.utils.progress import set_quiet

Bytes = NDArray[np.uint8]
Rows = list[torch.Tensor]
"""Logits along each answer, (positions, vocabulary)."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """What is left of a tensor's part along the directions.

    Attributes:
        name: of the tensor on disk.
        before, after: `|R^T W|` of the base and of the edit.
    """

    name: str
    before: float
    after: float


def along(edited: TensorWriter, checkpoint: Checkpoint) -> float:
    """`|R^T W|` of one tensor as a checkpoint stores it."""
    storage = edited.target
    parts = {part: np.frombuffer(b"".join(checkpoint.raw(part)), np.uint8) for part in storage.reads}

    def read(part: str, begin: int, into: Bytes) -> None:
        np.copyto(into, parts[part][begin : begin + into.size])

    assert edited.map is not None
    found = Along(storage, edited.map.right, edited.along_rows, edited.gains)
    for slab in range(storage.slabs):
        for first, last in storage.strips():
            found.add(storage.load(read, slab, first, last), first, last)
    return found.norm


def left(base: str, edited: str, directions: str) -> list[Left]:
    """What is left of each tensor that the edit writes."""
    edit = prepare(resolve(base), steps_of(directions), EditOptions())
    after = Checkpoint.open(resolve(edited).path)
    return [
        Left(name=writer.source.name, before=along(writer, edit.checkpoint), after=along(writer, after))
        for writer in edit.tensors.edits
    ]


def read_along(name: str, dtype: str, tokens: list[list[int]], answers: list[list[int]]) -> Rows:
    """The logits of a model along given answers."""
    model = load(name, dtype=dtype)
    own = own_answers(model, tokens, answers, max(map(len, answers)))
    return [own.logits.get("base", row) for row in range(len(tokens))]


def answered(name: str, dtype: str, texts: list[str], limit: int) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of prompts, and those of the model's greedy answers."""
    model = load(name, dtype=dtype)
    chat = ChatFormat(model.tokenizer)
    tokens = [chat.encode(text) for text in texts]
    found = generate(model, tokens, max_new_tokens=limit)
    return tokens, [list(each.tokens) for each in found]


def apart(base: Rows, other: Rows) -> torch.Tensor:
    """KL(base || other) of each prompt, the mean over positions, (n,) float64."""
    return torch.stack([kl_divergence(one, two).mean() for one, two in zip(base, other, strict=True)])


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directions")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--pair", nargs=3, action="append", required=True, metavar=("NAME", "BASE", "EDITED"))
    parser.add_argument("--limit", type=int, default=32, help="prompts")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer")
    parser.add_argument("--dtype", default="float32", help="that all models compute in")
    options = parser.parse_args()
    set_quiet(True)
    print("| format | tensors | left | worst tensor | its name |\n|---|---|---|---|---|")
    for name, base, edited in options.pair:
        rows = left(base, edited, options.directions)
        whole = [sum(getattr(row, part) ** 2 for row in rows) for part in ("after", "before")]
        worst = max(rows, key=lambda row: row.after / row.before)
        print(
            f"| {name} | {len(rows)} | {(whole[0] / whole[1]) ** 0.5:.3%} | {worst.after / worst.before:.3%} | "
            f"{worst.name} |",
            flush=True,
        )
    texts = [line for line in options.prompts.read_text(encoding="utf-8").splitlines() if line][: options.limit]
    tokens, answers = answered(options.pair[0][1], options.dtype, texts, options.tokens)
    gc.collect()
    logits: dict[tuple[str, str], Rows] = {}
    for name, *models in options.pair:
        for which, model in zip(("base", "edit"), models, strict=True):
            logits[name, which] = read_along(model, options.dtype, tokens, answers)
            gc.collect()
    names = [name for name, _, _ in options.pair]
    print(f"\nKL in nats over {options.tokens} tokens behind {len(texts)} prompts, computed in {options.dtype}\n")
    print("| format | edit from its base (95%) | base from the first base |\n|---|---|---|")
    for name in names:
        own = apart(logits[name, "base"], logits[name, "edit"])
        low, high = mean_interval(own) or (float("nan"), float("nan"))
        first = apart(logits[names[0], "base"], logits[name, "base"]).mean()
        print(f"| {name} | {own.mean():.4f} [{low:.4f}, {high:.4f}] | {first:.5f} |")
    print("\n| from the edit in | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    distances = {
        (one, two): float(apart(logits[one, "edit"], logits[two, "edit"]).mean())
        for one, two in itertools.permutations(names, 2)
    }
    for one in names:
        print(f"| {one} | " + " | ".join("-" if one == two else f"{distances[one, two]:.5f}" for two in names) + " |")


if __name__ == "__main__":
    main()
