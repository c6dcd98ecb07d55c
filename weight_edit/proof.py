"""Prove an architecture's edit on its narrow copy: nothing is left in the stream, and hooks agree with weights."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy import Anatomy, anatomy_of
from weight_edit.anatomy.blocks import StreamValues, block_calls
from weight_edit.anatomy.conversion import resolve
from weight_edit.anatomy.derive import TOKENS
from weight_edit.anatomy.graph import record
from weight_edit.anatomy.inputs import image_inputs, text_inputs
from weight_edit.anatomy.record import Proof, Proven
from weight_edit.anatomy.small import build, narrow_model
from weight_edit.anatomy.stored import Stored
from weight_edit.anatomy.writing import Writing
from weight_edit.edits import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.plan import EditPlan, edit_plan
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import read_config
from weight_edit.runtime.sources import Source
from weight_edit.threads import one_thread

MAX_LEAK = 1e-5
MAX_LOGIT_DIFFERENCE = 1e-4


def derive_and_prove(folder: Path, name: str, stored: Stored, *, trust_remote_code: bool = False) -> Proven:
    """Derive an anatomy from config.json alone, prove it, and find its parameters among the tensors on disk.

    Args:
        folder: of the model.
        name: what the user called it, for messages.
        stored: the tensors of its checkpoint.
        trust_remote_code: allow the config's own modelling code.

    Raises:
        UsageError: config.json cannot be read.
        UnsupportedError: the architecture is not understood, or its proof fails.
    """
    config = read_config(Source(name, folder, None), trust_remote_code=trust_remote_code)
    anatomy = anatomy_of(config, trust_remote_code=trust_remote_code)
    proof = prove(config, anatomy, trust_remote_code=trust_remote_code)
    layout = resolve(build(config, device="meta", trust_remote_code=trust_remote_code), stored)
    return Proven(anatomy, proof, layout)


def prove(
    config: Any, anatomy: Anatomy, *, directions: int = 2, seed: int = 0, trust_remote_code: bool = False
) -> Proof:
    """Edit a narrow copy of the architecture with random directions and measure what is left of them.

    Args:
        config: of the real model.
        anatomy: what `anatomy_of` found for it: this very account of the writers is what is proven.
        directions: how many are removed together.
        seed: of parameters, directions and tokens.
        trust_remote_code: allow the config's own modelling code.

    Raises:
        UnsupportedError: when a component is left or hooks and weights differ: some writer is not understood.
    """
    generator = torch.Generator().manual_seed(seed + 1)
    with one_thread():
        model = narrow_model(config, seed=seed, trust_remote_code=trust_remote_code)
        some = anatomy.writers[0]
        width = model.get_parameter(some.weight).shape[some.axis]
        rows = torch.from_numpy(orthonormal_rows(torch.randn(directions, width, generator=generator))).float()
        runs = [text_inputs(model, TOKENS, seed + 2)]
        if anatomy.images:
            images = image_inputs(model, model.config, seed + 2)
            runs += [] if images is None else [images]
        proof = measure(model, anatomy, rows, runs)
    if not proof.leak < MAX_LEAK:
        raise UnsupportedError(
            f"{anatomy.architecture}: after the edit {proof.leak:.1e} of the residual stream still lies along the "
            "directions on a small random copy, so some writer is not understood"
        )
    if not proof.logit_difference < MAX_LOGIT_DIFFERENCE:
        raise UnsupportedError(
            f"{anatomy.architecture}: on a small random copy the edited weights differ from the hooks by "
            f"{proof.logit_difference:.1e} in logits, so some writer is not understood"
        )
    return proof


def measure(model: nn.Module, anatomy: Anatomy, rows: Tensor, runs: Sequence[Mapping[str, Any]]) -> Proof:
    """Leak and logit difference of a full ablation on a model in memory, which is edited in place.

    Args:
        model: float32.
        anatomy: whose account of the writers the edit follows.
        rows: orthonormal directions, (k, d_model of this model).
        runs: keyword arguments of forward passes.
    """
    state = model.state_dict()
    plan = edit_plan(replace(anatomy, d_model=rows.shape[1]), rows, lambda name: state[name])
    before = [share for inputs in runs for share in stream_at_points(model, anatomy, rows, inputs)]
    difference = _logit_difference(model, plan, runs)
    edit_in_memory(model, plan)
    after = [share for inputs in runs for share in stream_at_points(model, anatomy, rows, inputs)]
    values = [share for inputs in runs for share in stream_in_graph(model, rows, inputs)]
    leak = max(*after, *values, key=lambda share: (math.isnan(share), share))
    return Proof(leak, max(before), difference, len(after), len(values))


def _logit_difference(model: nn.Module, plan: EditPlan, runs: Sequence[Mapping[str, Any]]) -> float:
    """The largest difference between logits with hooks and with edited weights.

    In double precision where the model's code allows for it: in single precision, rounding alone sends a token to
    another expert now and then, and recurrences amplify it.
    """
    found = float("nan")
    with suppress(RuntimeError):
        found = _between(copy.deepcopy(model).double(), plan, [double(inputs) for inputs in runs])
    return _between(copy.deepcopy(model), plan, runs) if math.isnan(found) else found


def _between(model: nn.Module, plan: EditPlan, runs: Sequence[Mapping[str, Any]]) -> float:
    state = model.state_dict()
    with hooked(model, plan.hooks(lambda name: state[name])):
        wanted = [logits(model, inputs) for inputs in runs]
    edit_in_memory(model, plan)
    return max(
        float((logits(model, inputs) - expected).abs().max()) for inputs, expected in zip(runs, wanted, strict=True)
    )


def double(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same arguments of a forward pass, in double precision."""
    return {key: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for key, x in inputs.items()}


def logits(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The logits of one forward pass: (batch, tokens, vocabulary)."""
    with torch.inference_mode():
        found: Tensor = model(**inputs, use_cache=False).logits
    return found


def stream_at_points(model: nn.Module, anatomy: Anatomy, rows: Tensor, inputs: Mapping[str, Any]) -> list[float]:
    """The share of the stream that lies along directions: the largest over tokens, for every call of every point."""
    shares: list[float] = []

    def look(x: Tensor) -> Tensor:
        shares.append(_share(x, rows))
        return x

    hooks = []
    for block in anatomy.blocks:
        hooks += [Hook(block.module, "input", look), Hook(block.module, "output", look)]
        hooks += [] if block.mid is None else [Hook(block.mid, "input", look)]
    with torch.inference_mode(), hooked(model, hooks):
        model(**inputs, use_cache=False)
    return shares


def stream_in_graph(model: nn.Module, rows: Tensor, inputs: Mapping[str, Any]) -> list[float]:
    """The same for every value of the stream that a forward pass makes, whether a module holds it or not."""
    graph = record(model, inputs)
    points = [v for call in block_calls(model, graph) for v in (call.given, call.returned) if v is not None]
    writing = Writing(graph)
    writing.follow(points)
    return [_share(value, rows) for value in StreamValues(writing, points).values]


def _share(x: Tensor, rows: Tensor) -> float:
    x = x.detach().double()
    length = x.norm(dim=-1)
    # Places that nothing has been written to yet hold zeros.
    share = (x @ rows.double().T).norm(dim=-1)[length > 0] / length[length > 0]
    return float("nan") if bool(share.isnan().any()) else float(share.max()) if share.numel() else 0.0


def edit_in_memory(model: nn.Module, plan: EditPlan) -> None:
    """Apply an edit to a loaded model's parameters. A tied unembedding stays tied, as in the mode "keep"."""
    with torch.no_grad():
        for name, change in plan.tensors().items():
            parameter = model.get_parameter(name)
            parameter.copy_(change(parameter.detach()))
