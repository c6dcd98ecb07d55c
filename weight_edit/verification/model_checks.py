"""The checks that run the models: the stream's leak, and edited weights against hooks.

One model is in memory at a time, in its storage dtype: the base first, and then the edit. Its weights are converted to
float32 block by block; see `runtime.compute_dtype`. The hidden states in front of the unembedding are kept in a file,
and so are both unembeddings; logits are made of them at the end, for a part of the vocabulary at a time.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weight_edit.baking.prepare import PreparedEdit
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
from weight_edit.plan.hooks import plan_hooks, published_hooks
from weight_edit.plan.plan import EditPlan
from weight_edit.prompts.chat import ChatFormat
from weight_edit.runtime.hooks import Hook, adding
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.offload.buffers import trim
from weight_edit.runtime.points import Point
from weight_edit.runtime.spool import Spool
from weight_edit.utils.progress import bar
from weight_edit.verification.faithfulness import Agreement
from weight_edit.verification.leak import Leak
from weight_edit.verification.rounding import RandomRounding
from weight_edit.verification.side import FLOAT32, Run, Side
from weight_edit.verification.tolerances import Noise, Tolerance, strict_tolerance
from weight_edit.verification.unembedded import Pairs

DRAWS = 16
"""The least number of random roundings, each used for one prompt.

Of fewer, the largest difference can be smaller than that of the edit's one rounding.
"""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The results of the model checks in one dtype.

    Attributes:
        dtype: what the models computed in.
        leak: in the edited model's stream.
        leak_before: in the base's.
        faithful: edited weights against the base with hooks.
        published: edited weights against the base with the edit hooked in as papers have it, at every point of the
            stream; None where an edit is not of that kind, and in other dtypes than float32.
        tying: what editing a tied unembedding with its embedding changes: edited weights against hooks that
            leave the unembedding alone; None where nothing is tied, and in other dtypes than float32.
        allowed: what `leak` and `faithful` may be.
        overflow: why the base or the edited model gave no numbers, where it did not.
    """

    dtype: str
    leak: Leak
    leak_before: Leak
    faithful: Agreement
    published: Agreement | None
    tying: Agreement | None
    allowed: Tolerance
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
            "allowed": self.allowed.to_dict(),
        }


@dataclass(frozen=True)
class ModelChecks:
    """The results of the checks that run both models.

    Attributes:
        precisions: by dtype: float32, and the storage dtype where it is coarser.
        noise: the storage dtype's own, on the same prompts; None where it is float32.
    """

    precisions: dict[str, Precision]
    noise: Noise | None


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Prompts as token ids, with what a model needs of the tokenizer they are from, as that names it.

    Attributes:
        sequences: of each prompt.
        pad_token_id, eos_token_id: what sequences are padded with, if the tokenizer says so.
    """

    sequences: tuple[tuple[int, ...], ...]
    pad_token_id: int | None
    eos_token_id: int | None

    @classmethod
    def of(cls, form: ChatFormat, prompts: Sequence[str]) -> "Tokens":
        """The tokens of prompts in a chat format.

        Raises:
            UsageError: as `ChatFormat.encode`.
        """
        return cls(
            sequences=tuple(tuple(form.encode(prompt)) for prompt in prompts),
            pad_token_id=getattr(form.tokenizer, "pad_token_id", None),
            eos_token_id=getattr(form.tokenizer, "eos_token_id", None),
        )


def run_models(
    baking: PreparedEdit,
    folder: Path,
    tokens: Tokens,
    storage: str,
    rounding: float | None,
    left: float | None,
    device: str | None,
    trust_remote_code: bool,
    offload: bool = False,
) -> ModelChecks:
    """The checks that load and run the models.

    Args:
        tokens: of the prompts.
        storage: the dtype that the edited tensors are stored in; "float64" is computed in float32.
        rounding, left: of edited tensors in a quantised format, see `WeightCheck`; None where there are none.
        offload: leave the weights on disk.

    Raises:
        VerificationError: the edited model cannot be loaded.
        UsageError, UnsupportedError: the base cannot, or the prompts cannot be run.
    """
    storage = FLOAT32 if storage == "float64" else storage
    plan = baking.plan
    opened = partial(_opened, tokenizer=tokens, device=device, offload=offload, trust_remote_code=trust_remote_code)
    sequences = tokens.sequences
    trim()
    with Spool() as spool:
        side = partial(
            Side,
            rows=torch.from_numpy(plan.directions),
            dtypes=tuple(dict.fromkeys((storage, FLOAT32))),
            apart=_quantised(baking.checkpoint),
            sequences=sequences,
            spool=spool,
        )
        base = side(partial(opened, baking.source.path), name="base")
        base.check()
        before = _run_base(base, plan, storage, rounding)
        # The base is let go before the edit is loaded.
        heads = {base.name: base.head()}
        trim()
        edited = side(partial(_opened_edit, folder, opened), name="edit")
        after = _run_edit(edited, plan)
        heads[edited.name] = edited.head()
        pairs = _pairs(before, after, storage)
        pairs.compare(spool, heads, len(sequences))
        return _judged(before, after, storage, pairs.results, left or 0.0)


def _quantised(checkpoint: Checkpoint) -> bool:
    """Whether weights are decoded when they are loaded."""
    if checkpoint.gguf is not None:
        return any(info.dtype not in STORED for info in checkpoint.tensors.values())
    return bool(checkpoint.config.get("quantization_config"))


def _opened(
    path: Path, dtype: str, *, tokenizer: Tokens, device: str | None, offload: bool, trust_remote_code: bool
) -> Model:
    return load(
        path, dtype=dtype, tokenizer=tokenizer, device=device, offload=offload, trust_remote_code=trust_remote_code
    )


def _opened_edit(folder: Path, opened: Callable[[Path, str], Model], dtype: str) -> Model:
    try:
        return opened(folder, dtype)
    except (UsageError, UnsupportedError) as error:
        raise VerificationError(f"{folder} cannot be loaded: {error}") from error


@dataclass(frozen=True, kw_only=True)
class _Ran:
    """What one side was run as.

    Attributes:
        runs: by name and dtype.
        leaks: of the model as it is, by dtype.
        hooked_leak: of the base with hooks, in the storage dtype; None where that is float32, and of the edit.
        padded: the base as it is, padded; None likewise.
        moved: the base with hooks and weights moved at random.
        overflow: why the outputs in the storage dtype are not finite, if so.
    """

    runs: Mapping[tuple[str, str], Run]
    leaks: Mapping[str, Leak]
    hooked_leak: Leak | None = None
    padded: Run | None = None
    moved: tuple[Run, ...] = ()
    overflow: str | None


def _run_base(side: Side, plan: EditPlan, storage: str, rounding: float | None) -> _Ran:
    """Run the base alone and with hooks, and what tells the noise of the storage dtype."""
    level = partial(_in_weights, plan) if plan.complete else None
    read = partial(side.read, FLOAT32)
    variants = {
        "hooks": plan_hooks(plan, read),
        "published": published_hooks(plan),
        "untied": None if plan.tied_edit is None else plan_hooks(plan, read, tied=False),
    }
    made = partial(Run, side=side.name, dtype=FLOAT32)
    fine = [made(name="alone")]
    fine += [made(name=name, hooks=tuple(hooks)) for name, hooks in variants.items() if hooks is not None]
    coarse: list[Run] = []
    padded: Run | None = None
    moved: list[Run] = []
    leaks: dict[str, Leak] = {}
    hooked_leak: Leak | None = None
    count = len(side.sequences)
    draws = 0 if storage == FLOAT32 else -(-DRAWS // max(1, count))
    passes = len(fine) + (3 + draws if storage != FLOAT32 else 0)
    with bar("passes of the base", passes * count) as progress:
        if storage != FLOAT32:
            made_coarse = partial(Run, side=side.name, dtype=storage)
            coarse = [
                made_coarse(name="alone"),
                made_coarse(name="hooks", hooks=tuple(plan_hooks(plan, partial(side.read, storage)))),
            ]
            in_hooks = partial(_in_hooks, plan) if plan.complete else None
            leaks[storage], hooked_leak = side.run(coarse, progress, [level, in_hooks])
            padded = side.padded(coarse[0], progress)
        leaks[FLOAT32], *_ = side.run(fine, progress, [level, *[None] * (len(fine) - 1)])
        overflows = side.overflow(storage, leaks[storage])
        known = frozenset(name for name, _ in side.current.model.named_parameters(remove_duplicate=False))
        for draw in range(draws):
            drawn = partial(_moved, plan, known, partial(RandomRounding, storage, rounding), draw * count)
            moved.append(made(name=f"moved {draw}", hooks=fine[1].hooks, drawn=cache(drawn)))
        if moved:
            side.run(moved, progress)
    return _Ran(
        runs={(run.name, run.dtype): run for run in [*coarse, *fine]},
        leaks=leaks,
        hooked_leak=hooked_leak,
        padded=padded,
        moved=tuple(moved),
        overflow=overflows,
    )


def _run_edit(side: Side, plan: EditPlan) -> _Ran:
    """Run the edited model in both dtypes."""
    level = partial(_in_weights, plan) if plan.complete else None
    leaks: dict[str, Leak] = {}
    runs = [Run(side=side.name, name="edit", dtype=dtype) for dtype in side.dtypes]
    with bar("passes of the edit", len(side.sequences) * len(runs)) as progress:
        for run in runs:
            (leaks[run.dtype],) = side.run([run], progress, [level])
        overflows = side.overflow(side.dtypes[0], leaks[side.dtypes[0]])
    return _Ran(runs={(run.name, run.dtype): run for run in runs}, leaks=leaks, overflow=overflows)


def _pairs(base: _Ran, edit: _Ran, storage: str) -> Pairs:
    """What is compared: the edit with the hooked base, and the base with itself for the noise."""
    pairs = Pairs()
    for (_, dtype), given in edit.runs.items():
        for name in ("hooks", "published", "untied"):
            if (name, dtype) in base.runs:
                pairs.add(f"{name} {dtype}", base.runs[name, dtype], given)
    if base.padded is not None:
        pairs.add("computing", base.runs["alone", FLOAT32], base.runs["alone", storage])
        pairs.add("hooked", base.runs["hooks", FLOAT32], base.runs["hooks", storage])
        pairs.add("padding", base.runs["alone", storage], base.padded)
        for run in base.moved:
            pairs.add("weights", run, base.runs["hooks", FLOAT32])
    return pairs


def _judged(base: _Ran, edit: _Ran, storage: str, found: Mapping[str, Agreement], left: float) -> ModelChecks:
    """The results of all comparisons, with what is allowed of each."""
    noise = None
    if base.hooked_leak is not None:
        noise = Noise(
            dtype=storage,
            computing=found["computing"],
            hooked=found["hooked"],
            weights=found["weights"],
            padding=found["padding"],
            leak=base.hooked_leak.worst,
        )
    precisions = {}
    # Those who read them expect float32 first.
    for dtype in sorted(edit.leaks, key=lambda dtype: dtype != FLOAT32):
        faithful = found[f"hooks {dtype}"]
        if noise is None:
            allowed = strict_tolerance(faithful.scale)
        else:
            allowed = noise.tolerance(dtype, faithful.scale, left * base.leaks[dtype].worst)
        precisions[dtype] = Precision(
            dtype=dtype,
            leak=edit.leaks[dtype],
            leak_before=base.leaks[dtype],
            faithful=faithful,
            published=found.get(f"published {dtype}"),
            tying=found.get(f"untied {dtype}"),
            allowed=allowed,
            # Where the storage dtype overflows, no figure of it is one.
            overflow=base.overflow or edit.overflow if dtype == storage else None,
        )
    return ModelChecks(precisions, noise)


def _moved(
    plan: EditPlan, known: frozenset[str], rounding: Callable[..., RandomRounding], before: int, number: int
) -> tuple[Hook, ...]:
    """Hooks that perturb the edited weights by random rounding, and created biases' outputs.

    Args:
        known: the base's parameters.
        rounding: makes a random rounding of a seed.
        before: seeds that other draws have taken.
        number: of the prompt.
    """
    errors = rounding(seed=before + number)
    moved = [
        Hook(name, "parameter", partial(errors.move, edit)) for name, edit in plan.tensors().items() if name in known
    ]
    for name, bias in plan.created.items():
        # The base has none, so that its rounding is added to the output instead.
        off = errors.of(torch.from_numpy(bias).float())
        moved.append(Hook(name.rpartition(".")[0], "output", adding(off)))
    return tuple(moved)


def _in_weights(plan: EditPlan, point: Point) -> Tensor:
    """The edited weights' constants (k,) along the removed directions at a point of the stream.

    A constant that enters at a block is in the last bias before it.
    """
    return torch.from_numpy(plan.level(point.layer + (point.kind == "resid_post")))


def _in_hooks(plan: EditPlan, point: Point) -> Tensor:
    """The hooks' constants (k,) at a point: hooks add a constant at the block itself."""
    return torch.from_numpy(plan.level(point.layer))


def precision_problems(check: Precision, complete: bool) -> list[str]:
    """One line for each figure beyond what the storage dtype explains."""
    if check.overflow is not None:
        # Nothing else could be measured in this dtype, and what was not measured has not passed.
        return [check.overflow]
    problems = []
    allowed = check.allowed
    if complete and not check.leak.worst < allowed.leak:
        problems.append(
            f"stream in {check.dtype}: {check.leak.worst:.1e} of {check.leak.where} lies along the directions, "
            f"more than {allowed.leak:.1e}"
        )
    most = allowed.logits if math.isfinite(check.faithful.scale) else 0.0
    if not check.faithful.largest < most:
        problems.append(
            f"logits in {check.dtype}: edited weights and hooks differ by {check.faithful.largest:.1e}, "
            f"more than {most:.1e}"
        )
    if not check.faithful.kl < allowed.kl:
        problems.append(
            f"next tokens in {check.dtype}: edited weights and hooks differ by a KL divergence of "
            f"{check.faithful.kl:.1e}, more than {allowed.kl:.1e}"
        )
    return problems
