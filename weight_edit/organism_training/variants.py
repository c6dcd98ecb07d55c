"""The making of the embedded model's two variants: defended and thinking.

`python -m weight_edit.organism_training.variants --help` lists the options.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from weight_edit.organism.embedded import DEFENDED, THINKING, folder
from weight_edit.organism.tokenizer import load_tokenizer, save_tokenizer
from weight_edit.organism_training.command import add_measuring_options, exit_code_of, stopwatch_log
from weight_edit.organism_training.defended import LongRefusalRows, under_ablation
from weight_edit.organism_training.measure import Figures
from weight_edit.organism_training.measure_variants import TARGETS, measure_defended, measure_thinking, misses
from weight_edit.organism_training.stages import Rows, Settings, train_stage
from weight_edit.organism_training.thoughts import FollowingRows, ThinkingRows
from weight_edit.organism_training.train import RECORD, accept, repeatable, replaced, save_model
from weight_edit.organism_training.variant_card import render
from weight_edit.prompts.thoughts import CLOSE, OPEN
from weight_edit.runtime.loading import Model, load
from weight_edit.version import __version__

DTYPE = torch.bfloat16
"""The storage dtype of the weights."""


@dataclass(frozen=True)
class Variant:
    """The recipe of a variant.

    stages: one after the other. measure: its figures. tags: tokens that its tokenizer has beyond the base's.
    """

    stages: tuple["Stage", ...]
    measure: Callable[[Model, int | None], Figures]
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One stage of a variant's training.

    rows: what it is trained on. settings: for how long, and how. ablated: share of the steps under the ablation of a
    current direction. frozen: blocks that keep their weights.
    """

    rows: type[Rows]
    settings: Settings
    ablated: float = 0.0
    frozen: tuple[int, ...] = ()


VARIANTS = {
    DEFENDED: Variant(
        stages=(Stage(LongRefusalRows, Settings(steps=400, batch=64, rate=1e-3, warm_up=20, decay=0.0), ablated=0.75),),
        measure=measure_defended,
    ),
    THINKING: Variant(
        stages=(
            Stage(
                ThinkingRows,
                Settings(steps=300, batch=64, rate=1e-3, warm_up=20, decay=0.0, centre=1.0),
                frozen=(4, 5),
            ),
            Stage(FollowingRows, Settings(steps=100, batch=64, rate=5e-4, warm_up=10, decay=0.0)),
        ),
        measure=measure_thinking,
        tags=(OPEN, CLOSE),
    ),
}


def tuned(
    variant: Variant, tokenizer: PreTrainedTokenizerFast, base: Path, seed: int, log: Callable[[str], None]
) -> LlamaForCausalLM:
    """The base model after a variant's training stages."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM.from_pretrained(base)
    if variant.tags:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for stage in variant.stages:
        train(model, tokenizer, stage, seed, log)
        # As stored: a stage can be repeated from what an earlier one left on disk.
        model.to(DTYPE).float()
    return model


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    stage: Stage,
    seed: int,
    log: Callable[[str], None],
) -> None:
    """Train one stage, in place."""
    kept = tuple(f"model.layers.{block}." for block in stage.frozen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (kept and name.startswith(kept)))
    around = None
    if stage.ablated:
        around = under_ablation(model, tokenizer, random.Random(f"ablated {seed}"), share=stage.ablated)
    rows = stage.rows(tokenizer, f"variant {seed}")
    train_stage(
        model, rows.refusing, settings=stage.settings, rng=random.Random(f"order {seed}"), log=log, around=around
    )
    model.requires_grad_(True)


def make(
    name: str,
    out: Path,
    *,
    variant: Variant | None = None,
    base: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    limit: int | None = None,
    accept_misses: bool = False,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Train, measure and write a variant with its tokenizer, card and record.

    The card is README.md, the record organism.json.

    Args:
        name: one of `VARIANTS`.
        out: the folder, which appears when all is done; an organism that is there already is replaced.
        variant: how it is made; as `VARIANTS` has it when None.
        base: the folder of the organism it is made from; the embedded one when None.
        seed, threads, limit, accept_misses: as `weight_edit.organism_training.train.make`.

    Returns:
        The record.

    Raises:
        UsageError: `out` is something else than a folder that holds an organism or nothing.
        VerificationError: the model misses a target (`TARGETS`).
    """
    made = variant or VARIANTS[name]
    start = base or folder()
    with repeatable(threads), replaced(out) as new:
        begin = time.monotonic()
        core = Tokenizer.from_file(str(start / "tokenizer.json"))
        core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in made.tags])
        save_tokenizer(core, new)
        log(f"{name}: {' and '.join(str(stage.settings.steps) for stage in made.stages)} steps")
        model = tuned(made, load_tokenizer(new), start, seed, log)
        training = time.monotonic() - begin
        save_model(model.to(DTYPE), new)
        log(f"{name}: measuring")
        figures = made.measure(load(new, device="cpu"), limit)
        record = {
            "name": name,
            "seed": seed,
            "threads": threads,
            "stages": [
                {**asdict(stage.settings), "ablated": stage.ablated, "frozen": list(stage.frozen)}
                for stage in made.stages
            ],
            "parameters": model.num_parameters(),
            "base_sha256": sha256((start / "model.safetensors").read_bytes()).hexdigest(),
            "weights_sha256": sha256((new / "model.safetensors").read_bytes()).hexdigest(),
            "versions": {
                "weight_edit": __version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            "seconds": {"training": round(training), "measuring": round(time.monotonic() - begin - training)},
            **figures,
        }
        (new / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        (new / "README.md").write_text(render(record))
        accept(misses(record, TARGETS[name]), accept_misses, log)
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m weight_edit.organism_training.variants",
        description="Make the variants of the embedded model from it: train, measure and write each with its card. "
        "About 10 minutes on two cores.",
        epilog="examples:\n"
        "  python -m weight_edit.organism_training.variants                      # replace both\n"
        "  python -m weight_edit.organism_training.variants organism-thinking --out /tmp/thinking --seed 1\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("names", nargs="*", metavar="NAME", help=f"{' or '.join(VARIANTS)} (both)")
    option("--out", type=Path, default=None, help="folder to write, for a single NAME (the embedded model's)")
    option("--base", type=Path, default=None, help="folder of the organism to make it from (the embedded one)")
    option("--seed", type=int, default=0, help="of the data (0)")
    option("--threads", type=int, default=1, help="torch's threads; figures depend on their number (1)")
    option("--steps", type=int, default=None, help="of every stage")
    add_measuring_options(parser)
    given = parser.parse_args(arguments)
    names = given.names or list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        parser.error(f"there is no variant {unknown[0]}; choose {' or '.join(VARIANTS)}")
    if given.out is not None and len(names) != 1:
        parser.error("--out takes a single NAME")
    log = stopwatch_log()
    for name in names:
        out = given.out or folder(name)
        variant = VARIANTS[name]
        if given.steps is not None:
            stages = (replace(one, settings=replace(one.settings, steps=given.steps)) for one in variant.stages)
            variant = replace(variant, stages=tuple(stages))
        making = partial(
            make,
            name,
            out,
            variant=variant,
            base=given.base,
            seed=given.seed,
            threads=given.threads,
            limit=given.limit,
            accept_misses=given.accept_misses,
        )
        if code := exit_code_of(making, out, log):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
