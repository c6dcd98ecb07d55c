"""One of the two models of a verification: run on all prompts, its hidden states and then its head kept in a file."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from weight_edit.runtime.batching import Batch, padded
from weight_edit.runtime.compute_dtype import Change, MixedError, widened
from weight_edit.runtime.forward import check_lengths
from weight_edit.runtime.forward_pass import forward_backbone
from weight_edit.runtime.head import Head
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.overflow import overflow
from weight_edit.runtime.passes import run_model
from weight_edit.runtime.points import Point
from weight_edit.runtime.spool import Spool
from weight_edit.runtime.variants import Variant
from weight_edit.utils.progress import Bar
from weight_edit.verification.leak import Leak, LeakMeter

FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A model run on all prompts, each alone.

    Attributes:
        side: the name of the side whose model it is.
        name: what it is called among that side's runs.
        dtype: what the model computes in.
        hooks: what is hooked in.
        drawn: what is hooked in besides, drawn at random for each prompt by its number; None where nothing is. The same
            hooks for a number each time it is asked.
    """

    side: str
    name: str
    dtype: str
    hooks: tuple[Hook, ...] = ()
    drawn: Callable[[int], tuple[Hook, ...]] | None = None

    @property
    def kept(self) -> str:
        """The name of its hidden states in the spool."""
        return f"{self.side} {self.name} {self.dtype}"

    @property
    def changes(self) -> dict[str, Change]:
        """What its hooks, but those drawn, make of parameters, by their names."""
        return changes_of(self.hooks)

    def of(self, number: int) -> tuple[Hook, ...]:
        """All hooks for a prompt."""
        return self.hooks if self.drawn is None else (*self.hooks, *self.drawn(number))


def changes_of(hooks: Sequence[Hook]) -> dict[str, Change]:
    """Parameter -> its change by hooks, composed in their order."""
    found: dict[str, Change] = {}
    for hook in hooks:
        if hook.where == "parameter":
            before = found.get(hook.module)
            found[hook.module] = hook.fn if before is None else partial(_after, before, hook.fn)
    return found


def _after(first: Change, second: Change, tensor: Tensor) -> Tensor:
    return second(first(tensor))


class Side:
    """One of the two models: loaded once for all dtypes if possible, and dropped when its head is taken."""

    def __init__(
        self,
        opened: Callable[[str], Model],
        *,
        name: str,
        rows: Tensor,
        dtypes: Sequence[str],
        apart: bool,
        sequences: Sequence[Sequence[int]],
        spool: Spool,
    ) -> None:
        """Prepare a side; nothing is loaded yet.

        Args:
            opened: the model, loaded in a dtype.
            name: of the side, in the spool.
            rows: directions along which the stream is measured, (k, d_model).
            dtypes: to compute in; the first one is that of storage.
            apart: the model is loaded for each dtype anew, as a quantised one must be: it is decoded when it is loaded,
                to numbers that a coarser dtype may not hold.
            sequences: token ids of the prompts.
            spool: where results go.
        """
        self.opened, self.name, self.rows, self.dtypes = opened, name, rows, tuple(dtypes)
        self.apart, self.sequences, self.spool = apart, sequences, spool
        self._model: Model | None = None
        self._loaded = ""

    def check(self) -> None:
        """Refuse prompts longer than the model's position table."""
        check_lengths(self.model(self.dtypes[0]), [len(sequence) for sequence in self.sequences])

    def model(self, dtype: str) -> Model:
        """The model, loaded in a dtype."""
        if self._model is None or self._loaded != dtype:
            self._model = None
            self._model, self._loaded = self.opened(dtype), dtype
        return self._model

    @property
    def current(self) -> Model:
        """The model, in whatever dtype it is loaded."""
        return self.model(self._loaded or self.dtypes[0])

    def read(self, dtype: str, name: str) -> Tensor:
        """A parameter of the model, in a dtype."""
        return self.current.parameter(name).to(getattr(torch, dtype))

    def head(self) -> Head:
        """The model's head; the model is dropped."""
        head = Head(self.current, f"{self.name} head", self.spool)
        self._model = None
        return head

    @contextmanager
    def computing(self, dtype: str, changes: Mapping[str, Change] | None = None) -> Iterator[Model]:
        """The model, computing in `dtype` with parameters changed, within the context."""
        held = dtype if self.apart or self._loaded == FLOAT32 else self.dtypes[0]
        model = self.model(held)
        with ExitStack() as stack:
            if held != dtype or changes:
                stack.enter_context(widened(model, getattr(torch, dtype), changes))
            yield model

    def run(
        self, runs: Sequence[Run], progress: Bar, levels: Sequence[Callable[[Point], Tensor] | None] | None = None
    ) -> list[Leak]:
        """Run all prompts and keep the hidden states in front of the unembedding, (tokens, d_model).

        A model that cannot compute in float32 while it is held in another dtype is loaded again, in float32.

        Args:
            runs: in one dtype; of a model that lies on disk, all go through a block before the next one is read.
            levels: what stands along the directions by intention, for each run, see `LeakMeter`.

        Returns:
            The leak of the stream in each run.
        """
        try:
            return self._run(runs, progress, levels)
        except MixedError:
            # It shows in the first forward pass, before anything was kept.
            self.model(FLOAT32)
            return self._run(runs, progress, levels)

    def padded(self, run: Run, progress: Bar) -> Run:
        """The same run of the plain model with each prompt padded beside another one, the shortest with the longest."""
        order = sorted(range(len(self.sequences)), key=lambda number: len(self.sequences[number]))
        pairs = [(order[place], order[-1 - place]) for place in range((len(order) + 1) // 2)]
        done = replace(run, name=f"padded {run.name}")

        def step(batch: Batch) -> Tensor:
            # A pass of the longer one alone is made one of both.
            (row,) = batch.rows
            together = padded(self.sequences, pairs[row], model.pad_id, "left").to(model.device)
            return forward_backbone(model, replace(together, under=batch.under * len(pairs[row]))).cpu()

        with self.computing(run.dtype) as model:
            longer = [self.sequences[second] for _, second in pairs]
            for batch, hidden in run_model(model, longer, step, batch_size=1):
                for row, number in enumerate(dict.fromkeys(pairs[batch.rows[0]])):
                    self.spool.keep(done.kept, number, hidden[row, -len(self.sequences[number]) :])
                    progress.advance()
        return done

    def overflow(self, dtype: str, leak: Leak) -> str | None:
        """The place, in words, where the stream is not finite; None if the leak is finite."""
        if not math.isnan(leak.worst):
            return None
        with self.computing(dtype) as model:
            return overflow(model, self.sequences)

    def _run(
        self, runs: Sequence[Run], progress: Bar, levels: Sequence[Callable[[Point], Tensor] | None] | None
    ) -> list[Leak]:
        given = dict(zip(runs, levels or [None] * len(runs), strict=True))
        meters: dict[Run, LeakMeter] = {}
        everything = range(len(self.sequences))
        plain = [run for run in runs if run.drawn is None and not run.changes]
        requests = [(plain, everything)] if plain else []
        for run in runs:
            if run.drawn is not None:
                requests += [([run], range(number, number + 1)) for number in everything]
            elif run.changes:
                requests.append(([run], everything))
        for some, numbers in requests:
            hooks = [run.of(numbers[0]) for run in some]
            with self.computing(runs[0].dtype, changes_of(hooks[0])) as model:
                for run in some:
                    meters.setdefault(run, LeakMeter(model, self.rows, given[run]))
                self._pass(model, some, hooks, numbers, meters=meters, progress=progress)
        return [meters[run].leak for run in runs]

    def _pass(
        self,
        model: Model,
        runs: Sequence[Run],
        hooks: Sequence[Sequence[Hook]],
        numbers: Sequence[int],
        *,
        meters: Mapping[Run, LeakMeter],
        progress: Bar,
    ) -> None:
        """Some prompts under some runs, in one request."""

        def step(batch: Batch) -> Tensor:
            (row,) = batch.rows
            with hooked(model.model, meters[runs[row // len(numbers)]].hooks):
                hidden = forward_backbone(model, batch)[0]
            if runs[0].dtype == FLOAT32 and hidden.dtype != torch.float32:
                raise MixedError(f"the hidden states are {hidden.dtype}")
            return hidden.cpu()

        # Parameters are changed where they are converted.
        variants = [Variant(tuple(hook for hook in each if hook.where != "parameter")) for each in hooks]
        sequences = [self.sequences[number] for number in numbers]
        for batch, hidden in run_model(model, sequences, step, variants=variants, batch_size=1, within=progress):
            variant, number = divmod(batch.rows[0], len(numbers))
            self.spool.keep(runs[variant].kept, numbers[number], hidden)
