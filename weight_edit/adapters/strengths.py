"""Whether an adapter that is dosed when it is served is the bake at that strength, measured on the plan by tensor.

What a runtime multiplies is `B A`. An edit at another strength is that as well where each tensor's change is linear in
the strength: an ablation is, behind norms too, and so are several along orthogonal directions; lengths that are kept,
reflections at a layer and ablations along directions that are not orthogonal are not.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from weight_edit.adapters.factors import Factors
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.plan import EditPlan, plan_edit
from weight_edit.plan.writer_edits import ParameterReader
from weight_edit.utils.arrays import Floats, Numbers

_LINEAR = 1e-6
"""The relative size of a difference that float32 directions leave."""
_MOST = 32


def check_strengths(strengths: Sequence[float]) -> tuple[float, ...]:
    """The strengths, sorted, each once.

    Raises:
        UsageError: one out of range, or too many.
    """
    wrong = next((each for each in strengths if not (math.isfinite(each) and 0 < each <= 2)), None)
    if wrong is not None:
        raise UsageError(f"strength {wrong:g} is outside of (0, 2]; 1 is the edit as it is", option="strengths")
    # To the digits that their folders' names have.
    found = tuple(sorted({float(f"{each:g}") for each in strengths}))
    if len(found) > _MOST:
        raise UsageError(f"{len(found)} strengths are too many; give at most {_MOST}", option="strengths")
    return found


def check_linear(plan: EditPlan, strengths: Sequence[float], read: ParameterReader[Numbers], projector: str) -> None:
    """Refuse strengths at which a dosed adapter would not be the edit of that strength.

    Args:
        plan: at full strength.
        strengths: what its steps' strengths are multiplied with.
        read: of the parameters, as for the plan.
        projector: as for the plan.

    Raises:
        UnsupportedError: names the first tensor in which they differ, and by how much.
        UsageError: a strength that makes one of a step out of range.
    """
    if plan.reflections:
        raise UnsupportedError(
            "a reflection at a layer turns the basis of all that follows: at half of its strength it is no edit at "
            "all; leave `strengths` out, or use a kind that edits writers",
            option=("strengths", "at"),
        )
    if any(edit.keep_norms for edit in plan.edits):
        raise UnsupportedError(
            "norm-preserving ablation is not linear in its strength: lengths are kept at each strength anew; leave "
            "`strengths` out and write an adapter at each `strength`",
            option=("strengths", "strength"),
        )
    full = plan.tensors()
    for strength in strengths:
        steps = [replace(step, strength=step.strength * strength) for step in plan.steps]
        at = plan_edit(plan.anatomy, steps, read, embeddings=plan.embeddings, projector=projector)
        if at.tied_edit is not None and at.tied_edit.map.rank and strength != 1:
            raise UnsupportedError(
                f"'{plan.anatomy.unembedding}' is tied to the embedding, and at strength {strength:g} something is "
                "left along the directions, so that the adapter would be one edit as it is served and another once it "
                "is merged; `embeddings='untie'` stores an unembedding of its own, skip leaves both",
                option=("embeddings", "strengths"),
            )
        changes = at.tensors()
        for name in full.keys() | changes.keys():
            off = _off(full.get(name), changes.get(name), strength)
            if off > _LINEAR:
                raise UnsupportedError(
                    f"this edit is not linear in its strength: at {strength:g}, '{name}' changes by {off:.1%} of its "
                    "change otherwise than an adapter's share of it, as where several steps' directions are not "
                    "orthogonal; leave `strengths` out and write an adapter at each `strength`",
                    option=("strengths", "strength"),
                )


def check_biases_scale(made: Sequence[Factors], biased: bool) -> None:
    """Refuse biases that PEFT stores whole, which no strength scales.

    Raises:
        UnsupportedError: names one.
    """
    stored = next((each.module for each in made if each.stored is not None), None)
    if stored is not None and not biased:
        raise UnsupportedError(
            f"the bias of '{stored}' would be stored whole (PEFT's `lora_only`), which no runtime scales with the "
            "factors, and biases of the adapter's own (`lora_bias`) go with neither embeddings nor experts; leave "
            "embeddings as they are (`embeddings='skip'`), or write an adapter at each `strength`",
            option=("strengths", "embeddings", "strength"),
        )


def _off(full: TensorEdit | None, part: TensorEdit | None, strength: float) -> float:
    """How far a change is from the strength's share of the full one, relative to that share."""
    if full is None or part is None:
        return math.inf
    left = np.concatenate([part.map.left, -strength * full.map.left], axis=1)
    right = np.concatenate([part.map.right, full.map.right], axis=1)
    shift, whole = _constant(part) - strength * _constant(full), strength * _constant(full)
    size = _norm(strength * full.map.left, full.map.right) ** 2 + float(whole @ whole)
    off = _norm(left, right) ** 2 + float(shift @ shift)
    return math.sqrt(off / size) if size else (math.inf if off else 0.0)


def _constant(edit: TensorEdit) -> Floats:
    return np.zeros(edit.map.width) if edit.map.constant is None else edit.map.constant


def _norm(left: Floats, right: Floats) -> float:
    """|left right^T|, by triangles: a difference of equals is small there as well."""
    return float(np.linalg.norm(np.linalg.qr(left)[1] @ np.linalg.qr(right)[1].T)) if left.size else 0.0
