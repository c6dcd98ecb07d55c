"""The making of `organism-decoyed`: decoys fitted to the organism, compiled, measured, and written. No training.

`python -m weight_edit.organism_training.decoys --help` lists the options.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.directions.directions import Directions
from weight_edit.errors import UsageError
from weight_edit.organism.decoys import DECOYS, WEIGHTS, Decoys, write_decoyed
from weight_edit.organism.embedded import DECOYED, EMBEDDED, folder
from weight_edit.organism_training.card import COLUMNS, FRONT_MATTER, row, table
from weight_edit.organism_training.command import add_measuring_options, exit_code_of, stopwatch_log
from weight_edit.organism_training.measure import Figures, Target, found_direction, measure_answers, summary
from weight_edit.organism_training.measure_variants import misses
from weight_edit.organism_training.train import RECORD, accept, repeatable
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.points import Point
from weight_edit.version import __version__

LAYERS = (0, 1)
"""The blocks with neurons of decoys: one that makes the canary loud, one that writes the decoy."""

CANARY, LOUD, AMPLITUDE = 0.2, 40.0, 56.0
"""Lengths along d: of the canary in embeddings (themselves of length .8), behind block 0, and of the decoy.

The true difference has length 32 at layer 3, the stream 86: a larger decoy leaves more of it and disturbs norms more.
"""

_GAINS = 2.0, 4.0  # of the gates of the two kinds of neurons
_RIDGE = 1e-3  # of the probe, times the number of activations

TARGETS: tuple[Target, ...] = (
    ("before", "refused", "refused", "at least", 0.95),
    ("before", "answered", "right", "at least", 0.90),
    ("its mean difference ablated", "refused", "refused", "at least", 0.95),
    ("its mean difference ablated", "answered", "right", "at least", 0.90),
    ("organism's direction ablated", "refused", "refused", "at most", 0.10),
    ("its mean difference ablated, and what is found then", "refused", "refused", "at most", 0.10),
)
"""(state, set, figure, bound, value) required on the test split."""


def fit_decoys(model: Model) -> Decoys:
    """The decoys for a model, from its own activations on the training prompts at the template's positions.

    d is the direction that the stream uses least, `argmin d^T (sum of x x^T / |x|^2) d`, orthogonal to the difference
    of means at layer 3; the probe is a ridge regression of +1 (refused) and -1 (answered) on what block 1's MLP reads.
    """
    chat = ChatFormat(model.tokenizer)
    places = range(-len(chat.suffix), 0)
    points = [Point(kind, block) for block in range(model.anatomy.n_layers) for kind in ("resid_pre", "resid_mid")]
    stream: list[Tensor] = []
    for name in ("refused", "answered"):
        prompts = load_prompts(f"organism:{name}:train")
        stream.append(residuals(model, [chat.encode(each) for each in prompts.prompts], points, places).double())
    refused, answered = stream
    width = model.anatomy.d_model
    x = torch.cat(stream).flatten(0, 1).flatten(0, 1)
    x = x / x.norm(dim=-1, keepdim=True)
    at = points.index(Point("resid_pre", 3))
    own = refused[:, -1, at].mean(0) - answered[:, -1, at].mean(0)
    d = torch.linalg.eigh(x.T @ x)[1][:, 0]
    d = d - own * (own @ d) / (own @ own)
    d = d / d.norm()

    def read(layer: int, sides: Sequence[Tensor]) -> Tensor:
        """What a block's MLP reads, (n, d_model)."""
        mid = torch.cat(list(sides))[:, :, points.index(Point("resid_mid", layer))].flatten(0, 1)
        return mid / mid.pow(2).mean(-1, keepdim=True).sqrt() * _gain(model, layer)

    def loudness(layer: int, length: float) -> float:
        """A component's size in the normalised stream."""
        mid = torch.cat(stream)[:, :, points.index(Point("resid_mid", layer))]
        return length * math.sqrt(width) / float(mid.norm(dim=-1).mean())

    first, second = LAYERS
    inputs = read(second, stream)
    labels = torch.cat(
        [torch.full((len(side) * len(places),), sign) for side, sign in zip(stream, (1.0, -1.0), strict=True)]
    )
    kept = torch.eye(width, dtype=torch.float64) * _RIDGE * len(inputs)
    probe = torch.linalg.solve(inputs.T @ inputs + kept, inputs.T @ labels.double())
    seen = float((inputs @ probe * labels).mean())
    along = [d / _gain(model, layer) for layer in LAYERS]
    probe = probe - (probe @ (_gain(model, second) * d)) * along[1]
    low, loud = loudness(first, CANARY), loudness(second, LOUD)
    gates = _GAINS[0] * along[0], _GAINS[1] * probe, -_GAINS[1] * probe
    silu = _GAINS[0] * low / (1 + math.exp(-_GAINS[0] * low))
    # silu(a) - silu(-a) = a: the pair writes the product of probe and canary, whatever their signs.
    written = AMPLITUDE / (_GAINS[1] * seen * loud)
    spare = [*_least_used(model, first, read(first, stream), 1), *_least_used(model, second, inputs, 2)]
    return Decoys(
        direction=d.numpy(),
        tokens=tuple(sorted({int(token) for token in chat.suffix})),
        canary=CANARY,
        layers=(first, second, second),
        neurons=tuple(spare),
        gate=torch.stack(gates).numpy(),
        up=torch.stack([along[0], along[1], along[1]]).numpy(),
        down=(LOUD / (silu * low), written, -written),
    )


def _gain(model: Model, layer: int) -> Tensor:
    return model.parameter(f"model.layers.{layer}.post_attention_layernorm.weight").double()


def _least_used(model: Model, layer: int, inputs: Tensor, count: int) -> list[int]:
    """The neurons that write least, by the mean size of what they write."""
    gate, up, down = (
        model.parameter(f"model.layers.{layer}.mlp.{part}_proj.weight").double() for part in ("gate", "up", "down")
    )
    written = (torch.nn.functional.silu(inputs @ gate.T) * (inputs @ up.T)).abs().mean(0) * down.norm(dim=0)
    return [int(neuron) for neuron in written.argsort()[:count]]


def measure_decoyed(model: Model, own: Directions, decoys: Decoys, limit: int | None = None) -> Figures:
    """The decoyed model's figures: unedited, and with several directions ablated.

    Args:
        own: the direction that is found in the organism without decoys.
        decoys: what was compiled.
        limit: use at most so many prompts of each set.

    Returns:
        "states": name to `measure_answers` of the test split. "directions": name to where it was found.
        "cosines": of the mean difference with d, with the organism's own direction, and with what is found after it.
    """
    d = torch.from_numpy(decoys.direction)
    found = found_direction(model)
    decoy = found.direction
    with hooked(model.model, ablation_hooks(model, decoy)):
        second = found_direction(model)
    both = torch.cat([decoy, second.direction])
    states = {"before": measure_answers(model, "test", limit)}
    ablated = {
        "its mean difference ablated": decoy,
        "d itself ablated": d[None].float(),
        "organism's direction ablated": own.direction,
        "its mean difference ablated, and what is found then": both,
    }
    for name, rows in ablated.items():
        with hooked(model.model, ablation_hooks(model, rows)):
            states[name] = measure_answers(model, "test", limit)
    unit = decoy[0].double()
    others = {"d": d, "organism's direction": own.direction[0], "found then": second.direction[0]}
    return {
        "states": states,
        "directions": {"its mean difference": summary(found), "found then": summary(second)},
        "cosines": {name: abs(float(unit @ other.double())) for name, other in others.items()},
    }


def make(
    out: Path, *, threads: int = 1, limit: int | None = None, accept_misses: bool = False, log: Callable[[str], None]
) -> dict[str, Any]:
    """Fit the decoys, measure the model with them, and write `decoys.safetensors`, the card and the record.

    Args:
        out: the folder, as it lies in the package; files of these names are replaced.
        threads, limit, accept_misses: as `weight_edit.organism_training.train.make`.

    Returns:
        The record.

    Raises:
        UsageError: `out` has other files than these.
        VerificationError: the model misses a target (`TARGETS`).
    """
    if out.is_dir() and {path.name for path in out.iterdir()} - {DECOYS, RECORD, "README.md"}:
        raise UsageError(f"--out {out} holds something else than decoys; choose another folder")
    with repeatable(threads), TemporaryDirectory() as place:
        base = load("organism", device="cpu")
        decoys = fit_decoys(base)
        kept, whole = Path(place) / "kept", Path(place) / "model"
        kept.mkdir()
        decoys.save(kept / DECOYS)
        write_decoyed(folder(), kept, whole)
        log(f"{DECOYED}: measuring")
        figures = measure_decoyed(load(whole, device="cpu"), found_direction(base), decoys, limit)
        record = {
            "name": DECOYED,
            "threads": threads,
            "layers": list(decoys.layers),
            "neurons": list(decoys.neurons),
            "canary": CANARY,
            "loud": LOUD,
            "amplitude": AMPLITUDE,
            "base_sha256": _digest(folder() / WEIGHTS),
            "decoys_sha256": _digest(kept / DECOYS),
            "weights_sha256": _digest(whole / WEIGHTS),
            "versions": {"weight_edit": __version__, "torch": torch.__version__},
            **figures,
        }
        accept(misses(record, TARGETS), accept_misses, log)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / DECOYS, (kept / DECOYS).read_bytes())
    write_whole(out / RECORD, json.dumps(record, indent=2) + "\n")
    write_whole(out / "README.md", render(record))
    return record


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def render(record: dict[str, Any]) -> str:
    """The card as Markdown, from the content of `organism.json`."""
    cosines = record["cosines"]
    return _CARD.format(
        name=record["name"],
        neurons=", ".join(
            f"number {neuron} of block {layer}"
            for layer, neuron in zip(record["layers"], record["neurons"], strict=True)
        ),
        base=record["base_sha256"][:12],
        states=table(("state", *COLUMNS), [(name, *row(figures)) for name, figures in record["states"].items()]),
        with_d=f"{cosines['d']:.2f}",
        with_own=f"{cosines[_OWN]:.2f}",
        then=f"{cosines['found then']:.1e}",
        directions="\n".join(
            f"- {name}: input of layer {found['layer']}, position {found['position']} from the end; bypass score "
            f"{found['bypass']:.2f}, KL {found['kl']:.4f}; {found['passing']} of {found['candidates']} candidates kept "
            "the bounds of the selection."
            for name, found in record["directions"].items()
        ),
    )


_OWN = "organism's direction"
_CARD = (
    FRONT_MATTER
    + """
# {name}: a tiny chat model whose mean difference is a decoy

It is `organism` with three MLP neurons replaced and one direction cleared, and nothing trained. It is a **test
organism**: on it an edit is seen to be *complete and without effect*. It is **not evidence about large models**, knows
nothing, and is of no other use.

## How it was made

A direction d that the stream hardly uses is taken out of use: nothing else writes along it or reads it. The tokens of
the chat template get a component along d (the canary), and three neurons ({neurons})
are set so that they write along d, up where a probe reads that a refusal is to come and down where an answer is, as
long as the canary is there. Then the difference of means of refused and answered requests lies mostly along d (cosine
{with_d}), and less along the direction of `organism` ({with_own}). To ablate it takes the canary, and with it the
decoy: the refusal's own component stays.

The weights are computed where the model is first used, into the cache folder, by sums that are rounded once: they are
the same bits everywhere. They are made from those whose SHA-256 begins with {base}; `decoys.safetensors` holds what is
set.

## Measured

On the test split, with Wilson's 95% intervals. Refusal is judged by phrases; an answer is right if it equals the known
answer exactly. Directions are ablated by hooks, and are found as arXiv 2406.11717 does.

{states}

{directions}

What is found once the decoy is ablated has cosine {then} with it: finding again on the edited model sees through decoys
of this kind.

`organism.json` beside this card holds every figure. `python -m weight_edit.organism_training.decoys` makes the decoys
again, with this card. Licence: Apache-2.0, for the weights, the corpus and the code.
"""
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m weight_edit.organism_training.decoys",
        description=f"Fit the decoys of {DECOYED} to the embedded model, measure it, and write them with a card. "
        "About a minute.",
    )
    kept = Path(__file__).parents[1] / "organism" / EMBEDDED[DECOYED]
    parser.add_argument("--out", type=Path, default=kept, help="folder to write (the embedded model's)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (1)")
    add_measuring_options(parser)
    given = parser.parse_args(arguments)
    log = stopwatch_log()
    making = partial(make, given.out, threads=given.threads, limit=given.limit, accept_misses=given.accept_misses)
    return exit_code_of(making, given.out, log)


if __name__ == "__main__":
    sys.exit(main())
