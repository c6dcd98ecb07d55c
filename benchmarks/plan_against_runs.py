"""What `weight-edit plan` says of a model against what its steps take: FLOPs, seconds, peak memory.

    python benchmarks/plan_against_runs.py MODEL --target FILE --baseline FILE [--n-train N] [--n-validation N]
        [--positions last] [--tokens N] [--prefix-tokens N] [--processor] [--whole]

The plan is made first, with its own calibration, and again after the runs: on a shared machine the two tell how much
the machine itself changed; with `--processor` and one thread (OMP_NUM_THREADS=1) both the calibration and the steps are
timed by the processor's time, which other programs disturb less. Steps run in this process; `--whole` runs find, bake,
verify and evaluate as commands, each in a process of its own whose peak memory is read. FLOPs are those that torch
counts, padding included, with eager attention, since it counts nothing of fused attention on a processor. No prompt and
no answer is printed.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from weight_edit.costs.amounts import Range
from weight_edit.costs.plan import CostPlan, plan_costs
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.generation import generate
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.points import Point
from weight_edit.utils.progress import set_quiet

MEASURED = Path(__file__).resolve().parent / "measured.py"


def main() -> int:
    """Print a line for each step."""
    asked = arguments()
    set_quiet(True)
    if asked.processor:
        time.perf_counter = time.process_time
    before = planned(asked)
    print(f"{'step':16} {'what':9} {'planned':>23} {'measured':>10} {'of middle':>9}")
    model = load(asked.model)
    chat = ChatFormat(model.tokenizer)
    drawn, held = asked.n_train + asked.n_validation, asked.n_validation
    target, baseline = (
        [chat.encode_opened(prompt) for prompt in load_prompts(file).at_most(drawn).prompts]
        for file in (asked.target, asked.baseline)
    )
    points = [Point("resid_pre", layer) for layer in range(model.anatomy.n_layers)]
    places = list(range(-before.work.positions, 0))
    steps: dict[str, Callable[[], object]] = {
        "activations": lambda: [
            residuals(model, some, points, places, description=None) for some in (target, baseline)
        ],
        "control": lambda: [
            next_token_logprobs(model, some[:held], description=None) for some in (target, baseline, baseline)
        ],
        "judged answers": lambda: generate(model, [*target, *baseline], max_new_tokens=asked.tokens, description=None),
    }
    for name, work in steps.items():
        seconds = timed(work)
        if name != "judged answers":
            say(name, "FLOPs", before.step(name).flops, counted(model, work))
        say(name, "seconds", before.step(name).seconds, seconds)
    after = planned(asked)
    assert before.rates is not None
    assert after.rates is not None
    print(f"calibrated again: {after.rates.flops / before.rates.flops:.2f} of the rate before the runs")
    if asked.whole:
        del model
        commands(asked, before)
    return 0


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--target", required=True)
    parser.add_argument("--baseline", required=True)
    parser.add_argument("--n-train", type=int, default=32)
    parser.add_argument("--n-validation", type=int, default=8)
    parser.add_argument("--positions", default="last")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--prefix-tokens", type=int)
    parser.add_argument("--n-evaluate", type=int, default=16)
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--whole", action="store_true")
    return parser.parse_args()


def planned(asked: argparse.Namespace) -> CostPlan:
    """The plan of the same work."""
    return plan_costs(
        asked.model,
        target=asked.target,
        baseline=asked.baseline,
        n_train=asked.n_train,
        n_validation=asked.n_validation,
        n_more=0,
        positions=asked.positions,
        max_new_tokens=asked.tokens,
        prefix_tokens=asked.prefix_tokens,
        n_evaluate=asked.n_evaluate,
        n_answers=asked.n_train + asked.n_validation,
        filter_prompts="none",
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def counted(model: Model, work: Callable[[], object]) -> float:
    """FLOPs that torch counts."""
    kind = model.model.config._attn_implementation
    model.model.set_attn_implementation("eager")
    try:
        with FlopCounterMode(display=False) as counter:
            work()
    finally:
        model.model.set_attn_implementation(kind)
    return float(counter.get_total_flops())


def commands(asked: argparse.Namespace, plan: CostPlan) -> None:
    """The verbs as a user calls them."""
    options = ["--n-train", str(asked.n_train), "--n-validation", str(asked.n_validation), "--n-more", "0"]
    prompts = ["--target", asked.target, "--baseline", asked.baseline]
    answers = ["--max-new-tokens", str(asked.tokens)]
    with tempfile.TemporaryDirectory() as folder:
        out, edited = Path(folder) / "d.safetensors", Path(folder) / "edited"
        found = ["--out", str(out), "--positions", asked.positions, "--best-effort"]
        # A small model refuses too little for the other ways.
        found += ["--filter", "none", "--tokens-from", "difference"]
        seconds, peak = command("find", asked.model, *prompts, *options, *answers, *found)
        steps = ("load", "first tokens", "activations", "selection", "control")
        say("find", "seconds", total(plan, steps), seconds)
        say("find", "bytes", Range.of(plan.memory.total), peak)
        seconds, _ = command("bake", asked.model, "--directions", str(out), "--out", str(edited))
        say("bake", "seconds", plan.step("bake").seconds, seconds)
        seconds, _ = command("verify", asked.model, str(edited), "--prompts", asked.baseline)
        say("verify", "seconds", plan.step("verify").seconds, seconds)
        sets = ["--refused", asked.target, "--answered", asked.baseline, "--limit", str(asked.n_evaluate)]
        seconds, _ = command("evaluate", str(edited), "--against", asked.model, *sets, "--no-card")
        say("evaluate", "seconds", plan.step("evaluate").seconds, seconds)


def total(plan: CostPlan, steps: Sequence[str]) -> Range:
    """Seconds of several steps."""
    found = [plan.step(name).seconds for name in steps]
    return sum((each for each in found if each is not None), start=Range(0.0, 0.0))


def command(*words: str) -> tuple[float, float]:
    """Seconds and peak bytes of a verb in a process of its own."""
    line = [sys.executable, str(MEASURED), sys.executable, "-m", "weight_edit", *words, "--quiet", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return found["seconds"], found["peak_mib"] * 2**20


def say(step: str, what: str, plan: Range | None, measured: float) -> None:
    """A line: the planned interval, what was measured, and that over the interval's geometric middle."""
    assert plan is not None
    middle = math.sqrt(plan.low * plan.high)
    between = f"{plan.low:.3g} to {plan.high:.3g}"
    print(f"{step:16} {what:9} {between:>23} {measured:10.3g} {measured / middle:9.2f}", flush=True)


if __name__ == "__main__":
    torch.manual_seed(0)
    raise SystemExit(main())
