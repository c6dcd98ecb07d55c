"""The proof of an architecture on its narrow copy: nothing left, hooks agree with weights."""

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weight_edit.anatomy.backtrace import Backtrace
from weight_edit.anatomy.blocks import StreamValues, block_calls, stream_points
from weight_edit.anatomy.derive import anatomy_with_model
from weight_edit.anatomy.disk.conversion import resolve
from weight_edit.anatomy.disk.gguf_layout import gguf_layout
from weight_edit.anatomy.disk.gguf_reader import GgufReader
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.graph.recording import record
from weight_edit.anatomy.inputs.passes import runs
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.anatomy.parts import Anatomy
from weight_edit.checkpoint.gguf.header import read_gguf_header
from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.hub.source import Source
from weight_edit.plan.hooks import plan_hooks
from weight_edit.plan.plan import EditPlan, plan_ablation
from weight_edit.proofs.record import AblationProof, ProvenAnatomy
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import read_config
from weight_edit.runtime.quiet import quiet_transformers
from weight_edit.utils.threads import one_thread

MAX_LEAK = 1e-5
MAX_LOGIT_DIFFERENCE = 1e-4


def derive_and_prove(folder: Path, name: str, stored: Stored, *, trust_remote_code: bool = False) -> ProvenAnatomy:
    """Derive an anatomy from config.json or the metadata of a GGUF file, prove it, and find its parameters on disk.

    Args:
        folder: of the model, or its GGUF file.
        name: what the user called it, for messages.
        stored: the tensors of its checkpoint.
        trust_remote_code: allow the config's own modelling code.

    Raises:
        UsageError: config.json cannot be read.
        UnsupportedError: the architecture is not understood, or its proof fails.
    """
    config = read_config(Source(name, folder, None), trust_remote_code=trust_remote_code)
    anatomy, real = anatomy_with_model(config, trust_remote_code=trust_remote_code)
    proof = prove_architecture(config, anatomy, trust_remote_code=trust_remote_code)
    gguf = gguf_files(folder)
    if gguf is None:
        return ProvenAnatomy(anatomy, proof, resolve(real, stored))
    with quiet_transformers():
        layout = gguf_layout(real, config, stored, GgufReader(read_gguf_header(gguf.first)), anatomy)
    return ProvenAnatomy(anatomy, proof, layout)


def prove_architecture(
    config: Any, anatomy: Anatomy, *, directions: int = 2, seed: int = 1, trust_remote_code: bool = False
) -> AblationProof:
    """Ablate random directions on a narrow copy and measure the rest in the stream.

    Args:
        config: of the real model.
        anatomy: what `anatomy_of` found for it: this very account of the writers is what is proven.
        directions: how many are removed together.
        seed: of parameters, directions and tokens; another than the anatomy was derived with, which is 0.
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
        proof = measure_ablation(model, anatomy, rows, runs(model, anatomy.media, seed + 2))
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


def measure_ablation(
    model: nn.Module, anatomy: Anatomy, rows: Tensor, passes: Sequence[Mapping[str, Any]]
) -> AblationProof:
    """The leak and the logit difference of a full ablation; the model is edited in place.

    Args:
        model: float32.
        anatomy: whose account of the writers the edit follows.
        rows: orthonormal directions, (k, d_model of this model).
        passes: keyword arguments of forward passes.
    """
    state = model.state_dict()
    plan = plan_ablation(replace(anatomy, d_model=rows.shape[1]), rows, lambda name: state[name])
    before = [share for inputs in passes for share in stream_at_points(model, anatomy, rows, inputs)]
    difference = _logit_difference(model, plan, passes)
    edit_in_memory(model, plan)
    after = [share for inputs in passes for share in stream_at_points(model, anatomy, rows, inputs)]
    values = [share for inputs in passes for share in stream_in_graph(model, rows, inputs)]
    return AblationProof(largest([*after, *values]), largest(before), difference, len(after), len(values))


def _logit_difference(model: nn.Module, plan: EditPlan, passes: Sequence[Mapping[str, Any]]) -> float:
    """The largest logit difference between hooks and weights, in float64 if the model can.

    In single precision, rounding alone sends a token to another expert now and then, and recurrences amplify it.
    """

    def between(source: nn.Module, given: Sequence[Mapping[str, Any]]) -> float:
        edited = copy.deepcopy(source)
        edit_in_memory(edited, plan)
        return hook_difference(source, edited, plan, given)

    found = float("nan")
    with suppress(RuntimeError):
        found = between(copy.deepcopy(model).double(), [double(inputs) for inputs in passes])
    return between(model, passes) if math.isnan(found) else found


def hook_difference(model: nn.Module, edited: nn.Module, plan: EditPlan, passes: Sequence[Mapping[str, Any]]) -> float:
    """The largest logit difference between a hooked and an edited model; NaN if any is.

    Where all logits are below 1, as families scale them, it is relative to the largest.

    Args:
        model: unedited.
        edited: the same with edited weights.
        plan: of the edit.
        passes: keyword arguments of forward passes.
    """
    state = model.state_dict()
    with hooked(model, plan_hooks(plan, lambda name: state[name])):
        wanted = [logits(model, inputs) for inputs in passes]
    # An edit so strong that it drowns everything can leave logits of zero.
    size = min(1.0, max(float(expected.abs().max()) for expected in wanted)) or 1.0
    pairs = zip(passes, wanted, strict=True)
    return largest([float((logits(edited, inputs) - expected).abs().max()) / size for inputs, expected in pairs])


def largest(shares: Sequence[float]) -> float:
    """The largest share; NaN if any is, which `max` would lose."""
    return max(shares, key=lambda share: (math.isnan(share), share))


def double(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a forward pass with floating-point tensors in float64."""
    return {key: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for key, x in inputs.items()}


def logits(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """The logits of one forward pass: (batch, tokens, vocabulary)."""
    with torch.inference_mode():
        found: Tensor = model(**inputs, use_cache=False).logits
    return found


def stream_at_points(model: nn.Module, anatomy: Anatomy, rows: Tensor, inputs: Mapping[str, Any]) -> list[float]:
    """The largest share of the stream along the rows over tokens, for every call of every point."""
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
    """The largest share along the rows for every stream value of a forward pass.

    It covers values that no module returns, too.
    """
    graph = record(model, inputs)
    points = stream_points(graph, block_calls(model, graph))
    writing = Backtrace(graph)
    writing.follow(points)
    return [_share(value, rows) for value in StreamValues(writing, points).values]


def _share(x: Tensor, rows: Tensor) -> float:
    x = x.detach().double()
    length = x.norm(dim=-1)
    # Places that nothing has been written to yet hold zeros.
    share = (x @ rows.double().T).norm(dim=-1)[length > 0] / length[length > 0]
    return float("nan") if bool(share.isnan().any()) else float(share.max()) if share.numel() else 0.0


def edit_in_memory(model: nn.Module, plan: EditPlan) -> None:
    """Apply an edit to a loaded model's parameters. A tied unembedding stays tied, as in the mode "both"."""
    with torch.no_grad():
        for name, change in plan.tensors().items():
            parameter = model.get_parameter(name)
            parameter.copy_(change(parameter.detach()))
