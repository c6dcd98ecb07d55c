"""Residual-stream activations: of single tokens, as running statistics, or of all tokens.

Points of the stream and their names are in `points`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from weight_edit.errors import UsageError
from weight_edit.runtime.batching import Batch
from weight_edit.runtime.forward import check_lengths
from weight_edit.runtime.hooks import Hook, hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.passes import forward_backbone, last_logits, run_model
from weight_edit.runtime.points import Point, hook_at
from weight_edit.runtime.processes import alone
from weight_edit.runtime.variants import PLAIN, Variant, by_rows

T = TypeVar("T")


@dataclass
class ResidualStatistics:
    """Running mean, and optionally covariance, per position and point, in float64.

    Batches are merged by their means and centred second moments, so nothing cancels when the mean is large.

    Attributes:
        with_covariance: also keep second moments (P, L, d_model, d_model), 8 d_model^2 bytes for each mean.
        count: prompts seen.
        mean: (P, L, d_model) float64; None before the first update.
    """

    with_covariance: bool = False
    count: int = 0
    mean: Tensor | None = None
    _moment: Tensor | None = field(default=None, repr=False)

    def update(self, x: Tensor) -> None:
        """Add activations (n, P, L, d_model) of n prompts."""
        if x.shape[0] == 0:
            return
        x = x.detach().double()
        mean = x.mean(dim=0)
        moment = None
        if self.with_covariance:
            centred = x - mean
            moment = torch.einsum("npld,nple->plde", centred, centred)
        self._combine(x.shape[0], mean, moment)

    def merge(self, other: "ResidualStatistics") -> None:
        """Add the prompts of another `ResidualStatistics`.

        Raises:
            ValueError: only one of the two keeps a covariance.
        """
        if self.with_covariance != other.with_covariance:
            raise ValueError("statistics with and without covariance cannot be merged")
        if other.mean is not None:
            self._combine(other.count, other.mean, other._moment)

    @property
    def covariance(self) -> Tensor:
        """Covariance (P, L, d_model, d_model), float64, divided by the count.

        Raises:
            ValueError: it was not asked for, or nothing was seen.
        """
        if self._moment is None:
            raise ValueError("no covariance: pass with_covariance=True and update first")
        return self._moment / self.count

    def _combine(self, count: int, mean: Tensor, moment: Tensor | None) -> None:
        if self.mean is None:
            self.count, self.mean = count, mean.clone()
            self._moment = None if moment is None else moment.clone()
            return
        total = self.count + count
        shift = mean - self.mean
        if self._moment is not None and moment is not None:
            outer = shift[..., :, None] * shift[..., None, :]
            self._moment = self._moment + moment + outer * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total


def residuals(
    model: Model,
    sequences: Sequence[Sequence[int]],
    points: Sequence[Point],
    positions: Sequence[int],
    *,
    batch_size: int | None = None,
    description: str | None = "activations",
) -> Tensor:
    """Activations at positions of each sequence, on the CPU.

    Shape (n, positions, points, d_model), float32.

    Args:
        sequences: token ids of each prompt.
        points: where in the stream; only these blocks are hooked, and the pass stops after the deepest.
        positions: negative, counted from each sequence's end (-1 is the last token).
        batch_size, description: as in `run_model`.

    Raises:
        UsageError: a position is not negative or reaches before a sequence's start, a point does not exist, a
            sequence is empty or too long, or memory runs out with a single one.
    """
    return residuals_under(
        model, (PLAIN,), sequences, points, positions, batch_size=batch_size, description=description
    )[0]


def residuals_under(
    model: Model,
    variants: Sequence[Variant],
    sequences: Sequence[Sequence[int]],
    points: Sequence[Point],
    positions: Sequence[int],
    *,
    batch_size: int | None = None,
    description: str | None = "activations",
) -> Tensor:
    """Activations as of `residuals`, under each variant: (variants, n, positions, points, d_model) float32.

    Raises:
        UsageError: as `residuals`.
    """
    _check(sequences, positions)
    check_lengths(model, [len(sequence) for sequence in sequences])
    result = torch.empty(
        (len(variants) * len(sequences), len(positions), len(points), model.anatomy.d_model), dtype=torch.float32
    )

    def step(batch: Batch) -> Tensor:
        found, keep = _kept(model, batch, points, positions)
        if points:
            _read(model, batch, points, keep)
        return found

    passes = run_model(
        model,
        sequences,
        step,
        variants=variants,
        keep=[max(1, -min(positions, default=-1))] * len(sequences),
        batch_size=batch_size,
        description=description,
    )
    for batch, x in passes:
        result[list(batch.rows)] = x
    return result.reshape(len(variants), len(sequences), *result.shape[1:])


def residuals_and_next(
    model: Model,
    sequences: Sequence[Sequence[int]],
    points: Sequence[Point],
    positions: Sequence[int],
    read: Callable[[Tensor], Sequence[T]],
    *,
    batch_size: int | None = None,
    description: str | None = "activations",
) -> tuple[Tensor, list[T]]:
    """Activations as of `residuals`, and what `read` makes of the logits behind each sequence, of one pass.

    Args:
        read: gets the logits of some rows, (rows, vocabulary) on the model's device in the dtype in which it computes,
            and returns a result for each; it may be called again where memory ran out.

    Raises:
        UsageError: as `residuals`.
    """
    _check(sequences, positions)
    check_lengths(model, [len(sequence) for sequence in sequences])
    result = torch.empty((len(sequences), len(positions), len(points), model.anatomy.d_model), dtype=torch.float32)
    answers: dict[int, T] = {}

    def step(batch: Batch) -> tuple[Tensor, Sequence[T]]:
        found, keep = _kept(model, batch, points, positions)
        with hooked(model.model, _hooks(model, batch, points, keep, whole=True)):
            logits = last_logits(model, batch, 1)[:, -1]
        return found, read(logits)

    passes = run_model(
        model,
        sequences,
        step,
        keep=[max(1, -min(positions, default=-1))] * len(sequences),
        read=1,
        batch_size=batch_size,
        description=description,
    )
    for batch, (x, values) in passes:
        result[list(batch.rows)] = x
        answers |= dict(zip(batch.rows, values, strict=True))
    return result, [answers[row] for row in range(len(sequences))]


def mean_residuals(
    model: Model,
    sequences: Sequence[Sequence[int]],
    points: Sequence[Point],
    *,
    batch_size: int | None = None,
    description: str | None = "activations",
) -> Tensor:
    """The mean activation over each sequence's tokens, on the CPU.

    Shape (n, points, d_model), float32.

    Raises:
        UsageError: as `residuals`.
    """
    _check(sequences, [])
    check_lengths(model, [len(sequence) for sequence in sequences])
    result = torch.empty((len(sequences), len(points), model.anatomy.d_model), dtype=torch.float32)

    def step(batch: Batch) -> Tensor:
        found = torch.empty((len(batch.rows), len(points), model.anatomy.d_model), dtype=torch.float32)

        def keep(point: Point, x: Tensor) -> None:
            weights = batch.mask.bool().to(x.device)[..., None]
            x = _one_stream(x)
            mean = (x.float() * weights).sum(dim=1) / weights.sum(dim=1)
            for index, asked in enumerate(points):
                if asked == point:
                    found[:, index] = mean.cpu()

        if points:
            _read(model, batch, points, keep)
        return found

    for batch, x in run_model(model, sequences, step, batch_size=batch_size, description=description):
        result[list(batch.rows)] = x
    return result


def each_residual(
    model: Model,
    sequences: Sequence[Sequence[int]],
    points: Sequence[Point],
    visit: Callable[[Point, Tensor, Tensor], None],
    *,
    batch_size: int | None = None,
    description: str | None = "activations",
) -> None:
    """Call `visit` with the activations of all tokens, one batch and one point at a time.

    Args:
        visit: called with the point, activations (rows, tokens, d_model) as the model has them, and the mask
            (rows, tokens), True at real tokens. Rows whose first try ran out of memory are shown again, so it
            should compute something like a maximum, not a sum.

    Raises:
        UsageError: as `residuals`.
    """
    check_lengths(model, [len(sequence) for sequence in sequences])
    if not points:
        return

    def step(batch: Batch) -> None:
        mask = batch.mask.bool()
        _read(model, batch, points, lambda point, x: visit(point, x, mask.to(x.device)))

    # What `visit` notes is this process's own: it is shown all of them.
    with alone():
        for _ in run_model(model, sequences, step, batch_size=batch_size, description=description):
            pass


class _DeepEnough(BaseException):
    """Ends a forward pass after the deepest point.

    Not an Exception, so that no model code catches it.
    """


def _kept(
    model: Model, batch: Batch, points: Sequence[Point], positions: Sequence[int]
) -> tuple[Tensor, Callable[[Point, Tensor], None]]:
    """Activations (rows, positions, points, d_model) to be filled, and what fills them point by point."""
    found = torch.empty((len(batch.rows), len(positions), len(points), model.anatomy.d_model), dtype=torch.float32)
    columns = batch.columns(positions)
    rows = torch.arange(len(batch.rows), device=columns.device)[:, None]

    def keep(point: Point, x: Tensor) -> None:
        chosen = _one_stream(x[rows.to(x.device), columns.to(x.device)].float()).cpu()
        for index, asked in enumerate(points):
            if asked == point:
                found[:, :, index] = chosen

    return found, keep


def _one_stream(x: Tensor) -> Tensor:
    """The stream, averaged over the parallel streams of hyper-connections.

    These are (rows, tokens, streams, d_model).
    """
    return x.mean(dim=2) if x.ndim == 4 else x


def _check(sequences: Sequence[Sequence[int]], positions: Sequence[int]) -> None:
    if any(position >= 0 for position in positions):
        raise UsageError(f"positions {list(positions)} must be negative: they count from the end of a prompt")
    needed = -min(positions, default=0)
    for row, sequence in enumerate(sequences):
        if len(sequence) < needed:
            raise UsageError(f"prompt {row} has {len(sequence)} tokens, so position -{needed} lies before its start")


def _read(model: Model, batch: Batch, points: Sequence[Point], keep: Callable[[Point, Tensor], None]) -> None:
    """Run one forward pass up to the deepest point and call `keep` with each point's activations.

    They are (rows, tokens, d_model).
    """
    with hooked(model.model, _hooks(model, batch, points, keep)):
        try:
            forward_backbone(model, batch)
        except _DeepEnough:
            return


def _hooks(
    model: Model,
    batch: Batch,
    points: Sequence[Point],
    keep: Callable[[Point, Tensor], None],
    *,
    whole: bool = False,
) -> list[Hook]:
    """Hooks that call `keep`; the deepest ends the pass, unless the whole of it is asked for."""
    ordered = sorted(set(points))

    def by_row(point: Point, x: Tensor) -> None:
        # Some families hand tokens of all rows to an MLP one after another.
        keep(point, by_rows(x, batch))

    return [_hook(model, point, by_row, last=point == ordered[-1] and not whole) for point in ordered]


def _hook(model: Model, point: Point, keep: Callable[[Point, Tensor], None], last: bool) -> Hook:
    def fn(x: Tensor) -> Tensor:
        keep(point, x)
        if last:
            raise _DeepEnough
        return x

    return hook_at(model, point, fn)
