"""Every verb on a real model: exit code, seconds, processor seconds and peak memory of each as a process of its own.

`python benchmarks/real_models.py FOLDER --prompts DIR --out DIR` bakes, verifies, evaluates, writes an adapter and runs
recipes on a model folder, with the prompts of `DIR/{harmful,harmless}-{train,validation,test}.txt`. It also spoils the
baked output: one writer is put back to the base's bytes and the digests are made to fit, which `verify` must see
(exit code 4). `--random` takes a random direction, for a model without a chat template, and only sees how `run` ends.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import yaml
from safetensors.numpy import save_file

from weight_edit.checkpoint.manifest import MANIFEST, sha256
from weight_edit.checkpoint.source.checkpoint import Checkpoint

RECIPES_FOLDER = Path(__file__).resolve().parent.parent / "recipes"
RECIPES = ("refusal-direction", "inlp-flip", "norm-preserving")
SETS = {"refused": "harmful", "answered": "harmless"}
# What real prompts have no answers for, and rates that only the embedded model is known to keep.
LIFTED = ("max_refusal", "max_over_refusal", "min_refusal", "min_answers_right", "min_helpful_recovered", "max_kl")


@dataclass(frozen=True)
class Measured:
    """One process: what it was asked, its exit code, seconds by the clock and of the processor, peak memory in MiB."""

    name: str
    code: int
    seconds: float
    processor: float
    peak: float
    said: str
    printed: str


def measured(name: str, arguments: list[str]) -> Measured:
    """Run one verb as a user would, without a terminal."""
    began = time.monotonic()
    with TemporaryFile("w+") as out, TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, "-m", "weight_edit", *arguments], stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        lines, printed = errors.read().strip().splitlines(), out.read()
    last = lines[-1] if lines else ""
    seconds, processor = time.monotonic() - began, usage.ru_utime + usage.ru_stime
    row = Measured(name, process.returncode, seconds, processor, usage.ru_maxrss / 1024, last, printed)
    print(f"| {name} | {row.code} | {seconds:.0f} | {processor:.0f} | {row.peak:.0f} | {last[:160]} |", flush=True)
    return row


def random_direction(model: Path, file: Path) -> None:
    """A unit vector of the model's width, float32, (1, d_model), as `bake` takes it."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    width = (config.get("text_config") or config)["hidden_size"]
    vector = np.random.default_rng(0).standard_normal((1, width)).astype(np.float32)
    save_file({"direction": vector / np.linalg.norm(vector)}, file)


def spoil(base: Path, baked: Path, out: Path) -> str:
    """A copy of an output in which one edited writer in the middle is the base's again, with digests that fit.

    Returns:
        the tensor's name.
    """
    shutil.copytree(baked, out)
    before, after = Checkpoint.open(base), Checkpoint.open(out)

    def content(checkpoint: Checkpoint, name: str) -> bytes:
        return b"".join(checkpoint.raw(name))

    edited = [name for name in sorted(before.tensors) if "embed" not in name]
    edited = [name for name in edited if content(before, name) != content(after, name)]
    name = edited[len(edited) // 2]
    place = after.info(name)
    file = out / place.shard
    with file.open("r+b") as shard:
        shard.seek(place.begin)
        shard.write(content(before, name))
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][place.shard]["sha256"] = sha256(file)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return name


def overlay(recipe: str, prompts: Path, file: Path, options: argparse.Namespace) -> None:
    """A recipe's overlay with these prompts, without those sets that there are none for, and with smaller searches."""
    sets = {
        f"{role}{'' if split == 'train' else '-' + split}": str(prompts / f"{name}-{split}.txt")
        for role, name in SETS.items()
        for split in ("train", "validation", "test")
    }
    sizes = {"n_train": options.n_train, "n_validation": options.n_validation, "positions": "last"}
    sizes |= {"filter_prompts": False} if options.keep_all else {}
    known = yaml.safe_load((RECIPES_FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8"))
    searches = {"find": sizes} if "find" in known else {"finds": dict.fromkeys(known["finds"], sizes)}
    measured_on = {"over_refused": None, "harmless_looking": None}
    content = {
        "prompts": sets,
        **searches,
        "verify": {"prompts": "@answered-test"},
        "evaluate": {**measured_on, "limit": options.limit, "max_new_tokens": options.tokens},
        "bounds": dict.fromkeys(LIFTED),
    }
    file.write_text(yaml.safe_dump(content), encoding="utf-8")


def main() -> int:
    """Exit code 1 if a spoilt output passed or a verb ended with a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="an empty or missing folder for what is written")
    parser.add_argument("--random", action="store_true", help="a random direction, for a model without a chat template")
    parser.add_argument("--limit", type=int, default=32, help="prompts of a set that are answered")
    parser.add_argument("--keep-all", action="store_true", help="also prompts that the model treats otherwise")
    parser.add_argument("--n-train", type=int, default=64, help="prompts of a set that directions are found from")
    parser.add_argument("--n-validation", type=int, default=16, help="prompts of a set that they are scored on")
    parser.add_argument("--tokens", type=int, default=48, help="new tokens of an answer")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for the recipes")
    parser.add_argument("--recipe", action="append", help=f"of {', '.join(RECIPES)}")
    options = parser.parse_args()
    model, out, prompts = options.model, options.out, options.prompts.resolve()
    out.mkdir(parents=True)
    directions, baked = out / "directions.safetensors", out / "edited"
    asked = str(prompts / "harmless-test.txt")

    print(
        "| verb | exit code | seconds | of the processor | peak MiB | last line on stderr |\n|---|---|---|---|---|---|"
    )
    rows = []
    if options.random:
        random_direction(model, directions)
    else:
        sets = ["--target", str(prompts / "harmful-train.txt"), "--baseline", str(prompts / "harmless-train.txt")]
        sets += ["--n-train", str(options.n_train), "--n-validation", str(options.n_validation)]
        sets += ["--no-filter-prompts"] if options.keep_all else []
        search = ["find", str(model), *sets, "--out", str(directions), "--positions", "last", "--best-effort"]
        rows.append(measured("find", search))
    rows.append(measured("bake", ["bake", str(model), "--directions", str(directions), "--out", str(baked)]))
    plain = ["--template", "plain"] if options.random else []
    verify = ["verify", str(model), str(baked), "--prompts", asked, "--json", *plain]
    rows.append(measured("verify", verify))
    if not options.random:
        given = ["--refused", str(prompts / "harmful-test.txt"), "--answered", asked, "--against", str(model)]
        length = ["--limit", str(options.limit), "--max-new-tokens", str(options.tokens), "--json"]
        rows.append(measured("evaluate", ["evaluate", str(baked), *given, *length]))
    (out / "figures.json").write_text(json.dumps({r.name: r.printed for r in rows}), encoding="utf-8")
    adapter = ["adapter", str(model), "--directions", str(directions), "--out", str(out / "adapter")]
    rows.append(measured("adapter", adapter))

    spoilt = out / "spoilt"
    name = spoil(model, baked, spoilt)
    caught = measured(f"verify, {name} as in the base", ["verify", str(model), str(spoilt), "--prompts", asked, *plain])
    shutil.rmtree(spoilt)

    for recipe in options.recipe or (RECIPES[:1] if options.random else RECIPES):
        extra = [argument for each in options.set for argument in ("--set", each)]
        changes = out / f"{recipe}-overlay.yaml"
        overlay(recipe, prompts, changes, options)
        command = ["run", recipe, "--with", str(changes), "--set", f"model={model}"]
        rows.append(measured(f"run {recipe}", [*command, *extra, "--out", str(out / recipe)]))
    failed = [row.name for row in rows if "Error" in row.said.split(":")[0] and row.code == 1]
    return int(bool(failed) or caught.code != 4)


if __name__ == "__main__":
    sys.exit(main())
