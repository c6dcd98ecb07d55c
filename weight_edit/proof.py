"""Prove an architecture's edit on its narrow copy: nothing is left in the stream, and hooks agree with weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from weight_edit.anatomy import Anatomy, anatomy_of
from weight_edit.anatomy.conversion import resolve
from weight_edit.anatomy.record import Proof, Proven
from weight_edit.anatomy.small import build, narrow_model
from weight_edit.anatomy.stored import Stored
from weight_edit.edits import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.plan import EditPlan, edit_plan
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, read_config
from weight_edit.runtime.sources import Source
from weight_edit.threads import one_thread
from weight_edit.verification.stream import stream_leak

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
        table = anatomy.embeddings[0]
        width = model.get_parameter(table.weight).shape[table.axis]
        rows = torch.from_numpy(orthonormal_rows(torch.randn(directions, width, generator=generator))).float()
        ids = torch.randint(3, 90, (2, 9), generator=generator)
        proof = measure(model, anatomy, rows, ids)
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


def measure(model: nn.Module, anatomy: Anatomy, rows: torch.Tensor, ids: torch.Tensor) -> Proof:
    """Leak and logit difference of a full ablation of `rows` on a model in memory, which is edited in place."""
    state = model.state_dict()
    whole = Model.from_parts(model, None, replace(anatomy, d_model=rows.shape[1]))
    plan = edit_plan(whole.anatomy, rows, lambda name: state[name])
    sequences = ids.tolist()
    before = stream_leak(whole, rows, sequences)
    with torch.inference_mode():
        with hooked(model, plan.hooks(lambda name: state[name])):
            wanted = model(input_ids=ids, use_cache=False).logits
        edit_in_memory(model, plan)
        given = model(input_ids=ids, use_cache=False).logits
    after = stream_leak(whole, rows, sequences)
    return Proof(after.worst, before.worst, float((given - wanted).abs().max()), len(after.by_point))


def edit_in_memory(model: nn.Module, plan: EditPlan) -> None:
    """Apply an edit to a loaded model's parameters. A tied unembedding stays tied, as in the mode "keep"."""
    with torch.no_grad():
        for name, change in plan.tensors().items():
            parameter = model.get_parameter(name)
            parameter.copy_(change(parameter.detach()))
