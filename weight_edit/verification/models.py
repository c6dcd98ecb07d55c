"""The checks that run the models: the stream's leak, and edited weights against the base with hooks."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weight_edit.activations import Point
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
from weight_edit.hooking import published_hooks
from weight_edit.overflow import overflow
from weight_edit.plan import EditPlan
from weight_edit.preparing import Baking
from weight_edit.prompts import ChatFormat, PromptSet
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.verification.faithfulness import Agreement, agreement, logits_of
from weight_edit.verification.stream import Leak, stream_leak
from weight_edit.verification.tolerances import TOLERANCES


@dataclass(frozen=True)
class Precision:
    """The checks that run the models, in one dtype.

    Attributes:
        dtype: what the models computed in.
        leak: in the edited model's stream.
        leak_before: in the base's.
        faithful: edited weights against the base with hooks.
        published: edited weights against the base with the edit hooked in as papers have it, at every point of the
            stream; None where an edit is not of that kind.
        overflow: why the base or the edited model gave no numbers, where it did not.
        tying: what editing a tied unembedding with its embedding changes: edited weights against hooks that
            leave the unembedding alone; None where nothing is tied.
    """

    dtype: str
    leak: Leak
    leak_before: Leak
    faithful: Agreement
    published: Agreement | None
    tying: Agreement | None
    overflow: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            **({"overflow": self.overflow} if self.overflow else {}),
            "leak": self.leak.worst,
            "leak_at": self.leak.where,
            "leak_before": self.leak_before.worst,
            "hook_against_weights": self.faithful.to_dict(),
            "published_hook_against_weights": None if self.published is None else self.published.to_dict(),
            "tied_unembedding": None if self.tying is None else self.tying.to_dict(),
        }


def run_models(
    baking: Baking,
    folder: Path,
    prompts: PromptSet,
    dtype: str,
    form: ChatFormat,
    device: str | None,
    trust_remote_code: bool,
) -> Precision:
    """The checks that need the models; one model at a time is in memory."""

    def opened(path: Path) -> Model:
        return load(path, dtype=dtype, device=device, trust_remote_code=trust_remote_code)

    plan = baking.plan
    rows = torch.from_numpy(plan.directions)
    level = partial(_level, plan) if plan.complete else None
    model = opened(baking.source.path)
    sequences = [form.encode(prompt) for prompt in prompts.prompts]
    before = stream_leak(model, rows, sequences, level)
    overflows = overflow(model, sequences) if math.isnan(before.worst) else None

    def under(hooks: list[Hook] | None) -> list[Tensor] | None:
        if hooks is None:
            return None
        with hooked(model.model, hooks):
            return logits_of(model, sequences)

    def read(name: str) -> Tensor:
        parameter: Tensor = model.model.get_parameter(name)
        return parameter.detach()

    wanted = under(plan.hooks(read))
    assert wanted is not None
    published = under(published_hooks(plan))
    exact = None if plan.tied_edit is None else under(plan.hooks(read, tied=False))
    del model, under, read
    try:
        model = opened(folder)
    except (UsageError, UnsupportedError) as error:
        raise VerificationError(f"{folder} cannot be loaded: {error}") from error
    given = logits_of(model, sequences)
    leak = stream_leak(model, rows, sequences, level)
    if overflows is None and math.isnan(leak.worst):
        overflows = overflow(model, sequences)
    return Precision(
        dtype,
        leak,
        before,
        agreement(wanted, given),
        None if published is None else agreement(published, given),
        None if exact is None else agreement(exact, given),
        overflows,
    )


def _level(plan: EditPlan, point: Point) -> Tensor:
    """What stands along the removed directions at a point of the stream, by intention."""
    return torch.from_numpy(plan.level(point.layer + (point.kind == "resid_post")))


def precision_problems(check: Precision, storage: str, complete: bool) -> list[str]:
    """A line for each figure that is above what the storage dtype explains."""
    if check.overflow is not None:
        # Nothing else could be measured in this dtype, and what was not measured has not passed.
        return [check.overflow]
    problems = []
    bounds = TOLERANCES[storage]
    if complete and not check.leak.worst < bounds.leak:
        problems.append(
            f"stream in {check.dtype}: {check.leak.worst:.1e} of {check.leak.where} lies along the directions, "
            f"more than {bounds.leak:.0e}"
        )
    allowed = bounds.logits * max(1.0, check.faithful.scale) if math.isfinite(check.faithful.scale) else 0.0
    if not check.faithful.largest < allowed:
        problems.append(
            f"logits in {check.dtype}: edited weights and hooks differ by {check.faithful.largest:.1e}, "
            f"more than {allowed:.1e}"
        )
    if not check.faithful.kl < bounds.kl:
        problems.append(
            f"next tokens in {check.dtype}: edited weights and hooks differ by a KL divergence of "
            f"{check.faithful.kl:.1e}, more than {bounds.kl:.0e}"
        )
    return problems
