"""Variants of a model: edits under which prompts are run, several in one batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from weight_edit.edits.low_rank import LowRankMap
from weight_edit.errors import UnsupportedError
from weight_edit.runtime.batching import Batch
from weight_edit.runtime.hooks import PASS, Hook, hooked
from weight_edit.runtime.loading import Model

Change = Callable[[Tensor], Tensor]


class UnmixedError(UnsupportedError):
    """A module is given tokens in a form that does not tell which row each belongs to."""


@dataclass(frozen=True, eq=False)
class Variant:
    """An edit under which prompts are run.

    Attributes:
        hooks: the edit.
    """

    hooks: tuple[Hook, ...] = ()

    @property
    def alone(self) -> bool:
        """Whether it shares no batch with another: a parameter is the same for all rows."""
        return any(hook.where == "parameter" for hook in self.hooks)

    def begins(self, model: Model) -> int:
        """The first block that it changes something in, or in front of; the number of blocks where there is none."""
        names = [block.module for block in model.anatomy.blocks]
        behind = {model.anatomy.final_norm, model.anatomy.unembedding}

        def place(hook: Hook) -> int:
            for layer, name in enumerate(names):
                if hook.module == name or hook.module.startswith(f"{name}."):
                    return layer
            return len(names) if hook.module in behind and hook.where != "parameter" else 0

        return min(map(place, self.hooks), default=len(names))


PLAIN = Variant()
"""The model as it is."""


@contextmanager
def under(model: Model, variants: Sequence[Variant]) -> Iterator[None]:
    """Within the context, each row of a batch goes through the hooks of its own variant.

    Variants that stand alone are attached as they are, and are for batches of their rows only.

    Raises:
        UnmixedError: in a pass of several variants, where a hooked module is not given rows; run one at a time.
    """
    # One that is given twice acts once on its rows.
    variants = list(dict.fromkeys(variants))
    alone = [variant for variant in variants if variant.alone]
    if alone:
        assert len(variants) == 1, "a variant that changes parameters shares no batch"
        with hooked(model.model, alone[0].hooks):
            yield
        return
    places: dict[tuple[str, str], dict[Variant, list[Change]]] = {}
    for variant in variants:
        for hook in variant.hooks:
            places.setdefault((hook.module, hook.where), {}).setdefault(variant, []).append(hook.fn)
    with hooked(model.model, [Hook(module, where, _ByRow(fns)) for (module, where), fns in places.items()]):  # type: ignore[arg-type]
        yield


@dataclass(eq=False)
class _ByRow:
    """The hook function that applies to each row what its variant does at one place.

    Attributes:
        changes: what each variant does there, in order.
    """

    changes: dict[Variant, list[Change]]
    _stacked: dict[object, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        batch = PASS.get()
        if not isinstance(batch, Batch):
            return x
        runs = batch.runs
        concerned = [variant for variant, _ in runs if variant in self.changes]
        if not concerned:
            return x
        if len(runs) == 1:
            return _in_turn(self.changes[concerned[0]], x)
        rows = by_rows(x, batch)
        if all(len(self.changes[each]) == 1 and isinstance(self.changes[each][0], LowRankMap) for each in concerned):
            return self._mapped(rows, runs).reshape(x.shape)
        parts = rows.split([count for _, count in runs])
        done = [_in_turn(self.changes.get(each, []), part) for (each, _), part in zip(runs, parts, strict=True)]
        return torch.cat(done).reshape(x.shape)

    def _mapped(self, x: Tensor, runs: list[tuple[Variant, int]]) -> Tensor:
        """Every row's own map, in float32 as `LowRankMap.apply` has it."""
        work = x.float() if x.dtype != torch.float64 else x
        left, right, constant = self._factors(runs, work)
        tokens = work.reshape(len(work), -1, work.shape[-1])
        if right.shape[-1]:
            tokens = torch.baddbmm(tokens, tokens @ right, left, alpha=-1)
        return (tokens + constant).reshape(x.shape).to(x.dtype)

    def _factors(self, runs: list[tuple[Variant, int]], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`left^T` (rows, k, d), `right` (rows, d, k) and `constant` (rows, 1, d) of a batch's rows."""
        key = (tuple((id(variant), count) for variant, count in runs), like.device, like.dtype)
        if key not in self._stacked:
            # Batches of the same composition come one after another; the factors of one are kept.
            self._stacked.clear()
            maps = [self.changes[variant][0] if variant in self.changes else None for variant, _ in runs]
            rank = max(each.rank for each in maps if isinstance(each, LowRankMap))
            width, count = like.shape[-1], len(runs)
            left, right = like.new_zeros(count, rank, width), like.new_zeros(count, width, rank)
            constant = like.new_zeros(count, 1, width)
            for index, each in enumerate(maps):
                if isinstance(each, LowRankMap):
                    own_left, own_right, own_constant = each.factors(like.device, like.dtype)
                    left[index, : each.rank], right[index, :, : each.rank] = own_left.T, own_right
                    if own_constant is not None:
                        constant[index, 0] = own_constant
            rows = torch.tensor([count for _, count in runs], device=like.device)
            self._stacked[key] = (
                left.repeat_interleave(rows, dim=0),
                right.repeat_interleave(rows, dim=0),
                constant.repeat_interleave(rows, dim=0),
            )
        return self._stacked[key]


def _in_turn(changes: Sequence[Change], x: Tensor) -> Tensor:
    for change in changes:
        x = change(x)
    return x


def by_rows(x: Tensor, batch: Batch) -> Tensor:
    """`x` with the batch's rows as its first axis: as it is, or tokens of all rows one after another.

    Raises:
        UnmixedError: it is neither.
    """
    rows, columns = batch.ids.shape
    if x.ndim >= 3 and x.shape[0] == rows:
        return x
    if x.ndim >= 2 and x.shape[0] == rows * columns:
        return x.unflatten(0, (rows, columns))
    raise UnmixedError(
        f"a module has a tensor of shape {tuple(x.shape)} where {rows} prompts of {columns} tokens went in, so that "
        "nobody can tell which prompt is where; look at another point of the stream"
    )
