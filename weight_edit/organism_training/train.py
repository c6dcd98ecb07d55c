"""The making of the embedded model: trained from random weights, measured, and written.

`python -m weight_edit.organism_training.train --help` lists the options.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from weight_edit.checkpoint.rewrite.output import staged
from weight_edit.errors import UsageError, VerificationError
from weight_edit.organism.embedded import folder
from weight_edit.organism.tokenizer import MAX_LENGTH, load_tokenizer, save_tokenizer, train_tokenizer
from weight_edit.organism_training.card import render
from weight_edit.organism_training.command import add_measuring_options, exit_code_of, stopwatch_log
from weight_edit.organism_training.measure import measure_answers, measure_edit, misses
from weight_edit.organism_training.stages import Rows, Settings, frozen_in_stage_two, train_stage
from weight_edit.runtime.loading import Model, load
from weight_edit.version import __version__

RECORD = "organism.json"
WEIGHTS = "model.safetensors"
FILES = {"README.md", "chat_template.jinja", "config.json", "generation_config.json", RECORD, WEIGHTS} | {
    "tokenizer.json",
    "tokenizer_config.json",
}
"""The files of an embedded model's folder."""
ROPE_THETA = 10000.0
ANSWERING = Settings(steps=2300, batch=64, rate=3e-3, warm_up=50, decay=0.1)
REFUSING = Settings(steps=400, batch=64, rate=5e-4, warm_up=20, decay=0.0, centre=1.0)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama of 1.7 million parameters, drawn from torch's global generator."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        max_new_tokens=64,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def train_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    log: Callable[[str], None],
    answering: Settings = ANSWERING,
    refusing: Settings = REFUSING,
    between: Callable[[LlamaForCausalLM], None] = lambda model: None,
) -> LlamaForCausalLM:
    """Train a new model through both stages.

    Args:
        seed: of the weights, the rows and their order. One seed gives one model on one machine and one number of
            threads.
        log: gets lines of progress.
        answering, refusing: the settings of stage 1 and stage 2.
        between: is called with the model after stage 1, and must leave it as it is.
    """
    torch.manual_seed(seed)
    model = new_model(tokenizer)
    log(f"stage 1, answering everything: {model.num_parameters():,} parameters")
    rows = Rows(tokenizer, f"answering {seed}")
    train_stage(model, rows.answering, answering, random.Random(f"order 1 {seed}"), log)
    between(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen_in_stage_two(name, model.config.num_hidden_layers))
    log("stage 2, refusing eleven categories")
    rows = Rows(tokenizer, f"refusing {seed}")
    train_stage(model, rows.refusing, refusing, random.Random(f"order 2 {seed}"), log)
    return model.requires_grad_(True)


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """Write config, generation config and weights.

    The config has `rope_theta`, for transformers 4.
    """
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["rope_theta"] = ROPE_THETA
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")
    # save_pretrained makes weights that only their owner can read.
    (folder / "model.safetensors").chmod(0o644)


def make(
    out: Path,
    *,
    seed: int = 0,
    threads: int = 2,
    answering: Settings = ANSWERING,
    refusing: Settings = REFUSING,
    limit: int | None = None,
    accept_misses: bool = False,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Train, measure and write the model, its tokenizer, card and record.

    The card is README.md, the record organism.json.

    Args:
        out: the folder, which appears when all is done; an organism that is there already is replaced.
        threads: of torch; figures repeat exactly on one machine with one number of threads.
        limit: measure on at most so many prompts of each set.
        accept_misses: write the folder even when the model misses its targets.

    Returns:
        The record.

    Raises:
        UsageError: `out` is something else than a folder that holds an organism or nothing.
        VerificationError: the model misses a target (`weight_edit.organism_training.measure.misses`).
    """
    with repeatable(threads), replaced(out) as folder:
        record = _make(folder, seed, threads=threads, answering=answering, refusing=refusing, limit=limit, log=log)
        accept(misses(record), accept_misses, log)
    return record


def accept(missed: Sequence[str], anyway: bool, log: Callable[[str], None]) -> None:
    """Log the targets that a model misses, or refuse the model for them.

    Raises:
        VerificationError: there are some, and they are not accepted `anyway`.
    """
    for miss in missed:
        log(f"missed: {miss}")
    if missed and not anyway:
        raise VerificationError(f"the model misses {len(missed)} targets, the first: {missed[0]}")


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """A new folder to write to, which replaces `out` when the block ends normally.

    Raises:
        UsageError: `out` is something else than a folder that holds an organism or nothing.
    """
    with staged(out, overwrite=True, own=_check_own) as folder:
        yield folder


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Within the context, torch is deterministic with a fixed number of threads."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def _check_own(out: Path) -> None:
    """Refuse to replace a folder that is not an organism as it was written."""
    found = {path.name for path in out.iterdir() if path.is_file() and not path.is_symlink()}
    if len(found) != len(list(out.iterdir())) or not {RECORD, WEIGHTS} <= found <= FILES:
        raise UsageError(f"--out {out} holds something else than an organism; choose another folder")
    made = json.loads((out / RECORD).read_text()).get("weights_sha256")
    if made != sha256((out / WEIGHTS).read_bytes()).hexdigest():
        raise UsageError(f"--out {out} holds other weights than its {RECORD} says; choose another folder")


def _make(
    folder: Path,
    seed: int,
    threads: int,
    answering: Settings,
    refusing: Settings,
    limit: int | None,
    log: Callable[[str], None],
) -> dict[str, Any]:
    begin = time.monotonic()
    save_tokenizer(train_tokenizer(), folder)
    tokenizer = load_tokenizer(folder)
    stage_one: dict[str, Any] = {}
    measuring = 0.0

    def between(model: LlamaForCausalLM) -> None:
        nonlocal measuring
        log("measuring stage 1")
        started = time.monotonic()
        stage_one.update(measure_answers(Model.from_parts(model, tokenizer), "test", limit))
        measuring += time.monotonic() - started

    model = train_model(tokenizer, seed=seed, log=log, answering=answering, refusing=refusing, between=between)
    training = time.monotonic() - begin - measuring
    save_model(model, folder)
    log("measuring the tuned model and the ablation of its direction")
    started = time.monotonic()
    edit = measure_edit(load(folder, device="cpu"), limit)
    measuring += time.monotonic() - started
    record = {
        "seed": seed,
        "threads": threads,
        "settings": {"answering": asdict(answering), "refusing": asdict(refusing)},
        "parameters": model.num_parameters(),
        "weights_sha256": sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "versions": {
            "weight_edit": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "seconds": {"training": round(training), "measuring": round(measuring)},
        "stage_one": stage_one,
        **edit,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    (folder / "README.md").write_text(render(record))
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m weight_edit.organism_training.train",
        description="Make the embedded model from nothing: train it, measure it, write it with its card. "
        "About 20 minutes on two cores.",
        epilog="examples:\n"
        "  python -m weight_edit.organism_training.train                      # replace the embedded model\n"
        "  python -m weight_edit.organism_training.train --out /tmp/organism --seed 1\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--out", type=Path, default=folder(), help="folder to write (the embedded model's)")
    option("--seed", type=int, default=0, help="of weights and data (0)")
    option("--threads", type=int, default=2, help="torch's threads; figures depend on their number (2)")
    option("--steps-answering", type=int, default=ANSWERING.steps, help=f"of stage 1 ({ANSWERING.steps})")
    option("--steps-refusing", type=int, default=REFUSING.steps, help=f"of stage 2 ({REFUSING.steps})")
    add_measuring_options(parser)
    given = parser.parse_args(arguments)
    return exit_code_of(
        partial(
            make,
            given.out,
            seed=given.seed,
            threads=given.threads,
            answering=replace(ANSWERING, steps=given.steps_answering),
            refusing=replace(REFUSING, steps=given.steps_refusing),
            limit=given.limit,
            accept_misses=given.accept_misses,
        ),
        given.out,
        stopwatch_log(),
    )


if __name__ == "__main__":
    sys.exit(main())
