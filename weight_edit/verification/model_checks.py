"""The checks that run the models: the stream's leak, and edited weights against hooks.

One model is in memory at a time, in its storage dtype: the base first, whose logits go to a file, and then the edit.
Its weights are converted to float32 block by block; see `runtime.compute_dtype`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weight_edit.baking.prepare import PreparedEdit
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
from weight_edit.plan.hooks import plan_hooks, published_hooks
from weight_edit.plan.plan import EditPlan
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.batching import padded
from weight_edit.runtime.compute_dtype import Change, MixedError, widened
from weight_edit.runtime.forward import check_lengths
from weight_edit.runtime.hooks import Hook, adding, hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.overflow import overflow
from weight_edit.runtime.passes import last_logits
from weight_edit.runtime.points import Point
from weight_edit.runtime.spool import Spool
from weight_edit.utils.progress import Bar, bar
from weight_edit.utils.threads import one_thread
from weight_edit.verification.faithfulness import Agreement, Comparison
from weight_edit.verification.leak import Leak, LeakMeter
from weight_edit.verification.rounding import RandomRounding
from weight_edit.verification.tolerances import Noise, Tolerance, strict_tolerance

FLOAT32 = "float32"

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


def run_models(
    baking: PreparedEdit,
    folder: Path,
    prompts: PromptSet,
    form: ChatFormat,
    storage: str,
    rounding: float | None,
    device: str | None,
    trust_remote_code: bool,
) -> ModelChecks:
    """The checks that load and run the models.

    Args:
        storage: the dtype that the edited tensors are stored in; "float64" is computed in float32.
        rounding: of edited tensors in a quantised format; None where there are none.

    Raises:
        VerificationError: the edited model cannot be loaded.
        UsageError, UnsupportedError: the base cannot, or the prompts cannot be run.
    """
    storage = FLOAT32 if storage == "float64" else storage
    dtypes = tuple(dict.fromkeys((storage, FLOAT32)))
    plan = baking.plan
    opened = partial(_opened, device=device, trust_remote_code=trust_remote_code)
    sequences = [form.encode(prompt) for prompt in prompts.prompts]
    with Spool() as spool:
        quantised = bool(baking.checkpoint.config.get(_QUANTISED))
        base = _Side(plan, partial(opened, baking.source.path), dtypes, quantised, sequences)
        base.check()
        found = _run_base(base, spool, storage, rounding)
        edited = base.of(partial(_opened_edit, folder, opened))
        return _run_edit(edited, spool, found, rounding)


_QUANTISED = "quantization_config"


def _opened(path: Path, dtype: str, *, device: str | None, trust_remote_code: bool) -> Model:
    return load(path, dtype=dtype, device=device, trust_remote_code=trust_remote_code)


def _opened_edit(folder: Path, opened: Callable[[Path, str], Model], dtype: str) -> Model:
    try:
        return opened(folder, dtype)
    except (UsageError, UnsupportedError) as error:
        raise VerificationError(f"{folder} cannot be loaded: {error}") from error


@dataclass
class _Found:
    """The base's results: leak by dtype, noise, and why its outputs are not finite, if so."""

    leaks: dict[str, Leak]
    noise: Noise | None
    overflow: str | None


class _Side:
    """One of the two models: loaded once for all dtypes if possible, and dropped afterwards."""

    def __init__(
        self,
        plan: EditPlan,
        opened: Callable[[str], Model],
        dtypes: Sequence[str],
        apart: bool,
        sequences: Sequence[Sequence[int]],
    ) -> None:
        self.plan, self.opened, self.dtypes = plan, opened, tuple(dtypes)
        # A quantised model is decoded when it is loaded, to numbers that a coarser dtype may not hold.
        self.apart = apart
        self.rows = torch.from_numpy(plan.directions)
        self.sequences = sequences
        self._model: Model | None = None
        self._loaded = ""

    def of(self, opened: Callable[[str], Model]) -> "_Side":
        """The other model's side, with the same tokens; this side's model is dropped."""
        self._model = None
        return _Side(self.plan, opened, self.dtypes, self.apart, self.sequences)

    def check(self) -> None:
        """Refuse prompts longer than the model's position table."""
        check_lengths(self.model(self.dtypes[0]), [len(sequence) for sequence in self.sequences])

    def model(self, dtype: str) -> Model:
        """The model, loaded in a dtype."""
        if self._model is None or self._loaded != dtype:
            self._model = None
            self._model, self._loaded = self.opened(dtype), dtype
        return self._model

    @contextmanager
    def computing(self, dtype: str, hooks: Sequence[Hook] = ()) -> Iterator[Model]:
        """The model, with hooks and computing in `dtype`, within the context."""
        held = dtype if self.apart or self._loaded == FLOAT32 else self.dtypes[0]
        model = self.model(held)
        changes = _changes(hooks)
        with ExitStack() as stack:
            if held != dtype or changes:
                stack.enter_context(widened(model, getattr(torch, dtype), changes))
            stack.enter_context(hooked(model.model, [hook for hook in hooks if hook.where != "parameter"]))
            stack.enter_context(torch.inference_mode())
            stack.enter_context(one_thread() if model.small else nullcontext())
            yield model

    def each(
        self,
        dtype: str,
        hooks: Sequence[Hook],
        visit: Callable[[int, Tensor], None],
        progress: Bar,
        level: Callable[[Point], Tensor] | None = None,
    ) -> Leak:
        """Call `visit` with each prompt's number and logits (tokens, vocabulary), on the CPU.

        Every prompt is run alone.

        A model that cannot compute in float32 while it is held in another dtype is loaded again, in float32.

        Args:
            level: what stands along the directions by intention, see `LeakMeter`.

        Returns:
            The leak of the stream.
        """
        try:
            return self._each(dtype, hooks, visit, progress, level)
        except MixedError:
            # It shows in the first forward pass, before anything was visited.
            self.model(FLOAT32)
            return self._each(dtype, hooks, visit, progress, level)

    def _each(
        self,
        dtype: str,
        hooks: Sequence[Hook],
        visit: Callable[[int, Tensor], None],
        progress: Bar,
        level: Callable[[Point], Tensor] | None,
    ) -> Leak:
        with self.computing(dtype, hooks) as model:
            meter = LeakMeter(model, self.rows, level)
            with hooked(model.model, meter.hooks):
                for number, sequence in enumerate(self.sequences):
                    ids = torch.tensor([sequence], device=model.device)
                    logits = model.model(input_ids=ids, use_cache=False).logits[0]
                    if dtype == FLOAT32 and logits.dtype != torch.float32:
                        raise MixedError(f"the logits are {logits.dtype}")
                    visit(number, logits.cpu())
                    progress.advance()
            return meter.leak

    def read(self, dtype: str, name: str) -> Tensor:
        """A parameter of the model, in a dtype."""
        return self.model(self._loaded or self.dtypes[0]).parameter(name).to(getattr(torch, dtype))


def _changes(hooks: Sequence[Hook]) -> dict[str, Change]:
    """Parameter -> its change by the hooks, composed in their order."""
    found: dict[str, Change] = {}
    for hook in hooks:
        if hook.where == "parameter":
            before = found.get(hook.module)
            found[hook.module] = hook.fn if before is None else partial(_after, before, hook.fn)
    return found


def _after(first: Change, second: Change, tensor: Tensor) -> Tensor:
    return second(first(tensor))


def _run_base(side: _Side, spool: Spool, storage: str, rounding: float | None) -> _Found:
    """Run the base alone and with hooks; the logits go to the spool."""
    plan = side.plan
    level = partial(_in_weights, plan) if plan.complete else None
    read = partial(side.read, FLOAT32)
    variants = {
        "hooks": plan_hooks(plan, read),
        "published": published_hooks(plan),
        "untied": None if plan.tied_edit is None else plan_hooks(plan, read, tied=False),
    }
    asked = {name: hooks for name, hooks in variants.items() if hooks is not None}
    coarse = storage != FLOAT32
    draws = -(-DRAWS // max(1, len(side.sequences)))
    leaks: dict[str, Leak] = {}
    computing, in_both, weights = Comparison(), Comparison(), Comparison()
    with bar("passes of the base", (len(asked) + (4 + draws if coarse else 1)) * len(side.sequences)) as progress:
        if coarse:
            leaks[storage] = side.each(storage, (), partial(spool.keep, "alone"), progress, level)
            padding = _padding(side, storage, spool, progress)
            hooks = plan_hooks(plan, partial(side.read, storage))
            in_hooks = partial(_in_hooks, plan) if plan.complete else None
            hooked_leak = side.each(storage, hooks, partial(spool.keep, f"hooks {storage}"), progress, in_hooks)
        against = partial(_compare, spool, "alone", computing) if coarse else _ignore
        leaks[FLOAT32] = side.each(FLOAT32, (), against, progress, level)
        for name, made in asked.items():
            side.each(FLOAT32, made, partial(spool.keep, f"{name} {FLOAT32}"), progress)
        overflows = _overflow(side, storage, leaks[storage])
        if not coarse:
            return _Found(leaks, None, overflows)
        moved = [*asked["hooks"], *_moved(side, RandomRounding(storage, rounding))]
        for _ in range(draws):
            side.each(FLOAT32, moved, partial(_compare, spool, f"hooks {FLOAT32}", weights), progress)
    for number in range(len(side.sequences)):
        in_both.add(spool.get(f"hooks {FLOAT32}", number), spool.get(f"hooks {storage}", number))
    noise = Noise(
        dtype=storage,
        computing=computing.result,
        hooked=in_both.result,
        weights=weights.result,
        padding=padding,
        leak=hooked_leak.worst,
    )
    return _Found(leaks, noise, overflows)


def _run_edit(side: _Side, spool: Spool, found: _Found, rounding: float | None) -> ModelChecks:
    """Run the edited model and compare its logits with the base's in the spool."""
    level = partial(_in_weights, side.plan) if side.plan.complete else None
    precisions = {}
    storage = side.dtypes[0]
    with bar("passes of the edit", len(side.sequences) * len(side.dtypes)) as progress:
        for dtype in side.dtypes:
            kept = {name: Comparison() for name in ("hooks", "published", "untied") if spool.has(f"{name} {dtype}")}
            leak = side.each(dtype, (), partial(_compare_all, spool, dtype, kept), progress, level)
            results = {name: comparison.result for name, comparison in kept.items()}
            faithful = results["hooks"]
            if found.noise is None:
                allowed = strict_tolerance(faithful.scale)
            else:
                allowed = found.noise.tolerance(dtype, faithful.scale, rounding)
            # Where the storage dtype overflows, no figure of it is one.
            why = found.overflow or _overflow(side, storage, leak) if dtype == storage else None
            precisions[dtype] = Precision(
                dtype=dtype,
                leak=leak,
                leak_before=found.leaks[dtype],
                faithful=faithful,
                published=results.get("published"),
                tying=results.get("untied"),
                allowed=allowed,
                overflow=why,
            )
    # Those who read them expect float32 first.
    ordered = {dtype: precisions[dtype] for dtype in sorted(precisions, key=lambda dtype: dtype != FLOAT32)}
    return ModelChecks(ordered, found.noise)


def _overflow(side: _Side, dtype: str, leak: Leak) -> str | None:
    """The place, in words, where the stream is not finite; None if the leak is finite."""
    if not math.isnan(leak.worst):
        return None
    with side.computing(dtype) as model:
        return overflow(model, side.sequences)


def _moved(side: _Side, rounding: RandomRounding) -> list[Hook]:
    """Hooks that perturb the edited weights by random rounding, and created biases' outputs."""
    model = side.model(side.dtypes[0]).model
    known = dict(model.named_parameters(remove_duplicate=False))
    edits = side.plan.tensors()
    moved = [Hook(name, "parameter", partial(rounding.move, edit)) for name, edit in edits.items() if name in known]
    for name, bias in side.plan.created.items():
        # The base has none, so that its rounding is added to the output instead.
        off = rounding.of(torch.from_numpy(bias).float())
        moved.append(Hook(name.rpartition(".")[0], "output", adding(off)))
    return moved


def _compare(spool: Spool, name: str, comparison: Comparison, number: int, logits: Tensor) -> None:
    comparison.add(logits, spool.get(name, number))


def _compare_all(spool: Spool, dtype: str, kept: Mapping[str, Comparison], number: int, logits: Tensor) -> None:
    for name, comparison in kept.items():
        comparison.add(spool.get(f"{name} {dtype}", number), logits)


def _ignore(number: int, logits: Tensor) -> None:
    """Compare nothing: stored in float32, the base has no noise to measure."""


def _padding(side: _Side, dtype: str, spool: Spool, progress: Bar) -> Agreement:
    """The effect of padding: each prompt beside another one against the same prompt alone.

    The shortest prompt is paired with the longest.
    """
    comparison = Comparison()
    order = sorted(range(len(side.sequences)), key=lambda number: len(side.sequences[number]))
    pairs = [(order[place], order[-1 - place]) for place in range((len(order) + 1) // 2)]
    with side.computing(dtype) as model:
        for pair in pairs:
            batch = padded(side.sequences, pair, model.pad_id, "left").to(model.device)
            logits = last_logits(model, batch, batch.ids.shape[1])
            for row, number in enumerate(dict.fromkeys(pair)):
                own = len(side.sequences[number])
                comparison.add(spool.get("alone", number), logits[row, -own:].cpu())
                progress.advance()
    return comparison.result


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
