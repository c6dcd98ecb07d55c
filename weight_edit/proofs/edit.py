"""The proof of an edit that depends on more than the writers: hooks and weights agree.

An ablation needs nothing but a complete account of the writers, which is proven once for an architecture. A change of
basis also needs one of the readers, and a constant a bias that adds it exactly once, which experts with routing weights
give only when these sum to one. Neither is believed: both are tried.
"""

import copy
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from weight_edit.anatomy.inputs.passes import runs
from weight_edit.anatomy.narrow.new_biases import NewBiases, new_biases, with_new_biases
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.anatomy.parts import Anatomy
from weight_edit.anatomy.readers import Reading, reading_of
from weight_edit.edits.changes import BasisChange
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.plan.plan import EditPlan, plan_edit
from weight_edit.plan.step import EditStep, with_rows
from weight_edit.proofs.architecture import MAX_LOGIT_DIFFERENCE, double, edit_in_memory, hook_difference
from weight_edit.utils.arrays import Floats
from weight_edit.utils.threads import one_thread


@dataclass(frozen=True)
class EditProof:
    """The facts about a model that an edit depends on, found and tried on a narrow copy.

    Attributes:
        reading: how it reads the stream; None where the edit has no change of basis.
        biases: the setting that gives it the biases that the edit creates; None where it creates none, or no checkpoint
            will hold them.
        difference: largest between the logits of hooks and weights on the narrow copy.
    """

    reading: Reading | None
    biases: NewBiases | None
    difference: float


def prove_edit(
    config: Any,
    anatomy: Anatomy,
    steps: Sequence[EditStep],
    *,
    embeddings: str = "both",
    projector: str = "edit",
    written: bool = True,
    trust_remote_code: bool = False,
) -> EditProof:
    """Try an edit, with random directions, on a narrow copy of the architecture.

    Args:
        config: of the real model.
        anatomy: of it.
        steps: of the edit; see `plan_edit`.
        written: whether a checkpoint must be able to hold the biases that the edit creates. If not, they are put on the
            copy's linear maps as they are, as an adapter does.

    Raises:
        UnsupportedError: weights cannot make this edit, or hooks and weights differ.
    """
    with one_thread():
        model = narrow_model(config, seed=1, trust_remote_code=trust_remote_code)
        some = anatomy.writers[0]
        width = model.get_parameter(some.weight).shape[some.axis]
        turns = any(isinstance(step.change, BasisChange) for step in steps)
        reading = reading_of(model, anatomy) if turns else None
        centred = reading is not None and reading.centred
        generator = np.random.default_rng(2)
        drawn = _rows(generator, [len(step.directions.rows) for step in steps], width, centred)
        narrow = [with_rows(step, rows) for step, rows in zip(steps, drawn, strict=True)]
        state = model.state_dict()
        # Untied, so that the two ends can be edited apart: what a tied unembedding becomes is not in question here.
        apart = replace(anatomy, d_model=width, tied=False)
        plan = plan_edit(
            apart, narrow, lambda name: state[name], embeddings=embeddings, projector=projector, reading=reading
        )
        biases = None
        if plan.created and written:
            biases = new_biases(config, plan.created, trust_remote_code=trust_remote_code)
        difference = _difference(model, anatomy, plan, biases, trust_remote_code)
    if not difference < MAX_LOGIT_DIFFERENCE:
        what = " and ".join(dict.fromkeys(step.kind for step in steps))
        raise UnsupportedError(
            f"{anatomy.architecture}: on a small random copy the weights edited by {what} differ from the hooks by "
            f"{difference:.1e} in logits, so that the edit cannot be baked exactly into this architecture"
        )
    return EditProof(reading, biases, difference)


def _rows(generator: np.random.Generator, counts: Sequence[int], width: int, centred: bool) -> list[Floats]:
    """Random rows for each step, orthonormal over all steps.

    Only a projection can be laid in front of a LayerNorm that writes to the stream, and several steps compose to one
    only where their rows are orthogonal.
    """
    share = max(1, width // 2 // len(counts))
    sizes = [min(count, share) for count in counts]
    rows = generator.standard_normal((sum(sizes), width))
    found = orthonormal_rows(rows - rows.mean(axis=1, keepdims=True) if centred else rows)
    return np.split(found, np.cumsum(sizes)[:-1])


def _difference(
    model: nn.Module, anatomy: Anatomy, plan: EditPlan, biases: NewBiases | None, trust_remote_code: bool
) -> float:
    passes = runs(model, anatomy.media, 3)
    _untie(model, anatomy)
    edited = copy.deepcopy(model)
    if biases is None:
        _give_biases(edited, plan)
    else:
        flagged = narrow_model(biases.config, seed=1, trust_remote_code=trust_remote_code)
        _untie(flagged, anatomy)
        edited = with_new_biases(model, flagged, plan.created)
    found = float("nan")
    with suppress(RuntimeError):
        # In double precision where the model's code allows for it, as in `proof`.
        source, target = copy.deepcopy(model).double(), copy.deepcopy(edited).double()
        edit_in_memory(target, plan)
        _restore(target, plan)
        found = hook_difference(source, target, plan, [double(inputs) for inputs in passes])
    if math.isnan(found):
        edit_in_memory(edited, plan)
        found = hook_difference(model, edited, plan, passes)
    return found


def _give_biases(model: nn.Module, plan: EditPlan) -> None:
    """Put the created biases on the linear maps of a model in memory."""
    for name, values in plan.created.items():
        module = model.get_submodule(name.removesuffix(".bias"))
        if not isinstance(module, nn.Linear):
            raise UnsupportedError(
                f"'{name.removesuffix('.bias')}' is no plain linear map, so that an adapter cannot give it a bias; "
                "choose another layer, or an edit without a constant"
            )
        module.bias = nn.Parameter(torch.as_tensor(values).to(module.weight))


def _restore(model: nn.Module, plan: EditPlan) -> None:
    """Set the created biases again in float64, after they went through the float32 of the copy."""
    with torch.no_grad():
        for name, values in plan.created.items():
            model.get_parameter(name).copy_(torch.as_tensor(values))


def _untie(model: nn.Module, anatomy: Anatomy) -> None:
    """Give the unembedding its own weight, as the real checkpoint may have one.

    The copy's config may tie what the checkpoint holds apart.
    """
    head: Any = model.get_submodule(anatomy.unembedding)
    if head.weight is model.get_parameter(anatomy.embedding_weight):
        head.weight = nn.Parameter(head.weight.detach().clone())
