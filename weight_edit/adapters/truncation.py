"""Factors of a chosen rank for a change that has a higher one, and what is lost with the rest.

Of a norm-preserving ablation the part along the directions is kept whole, so that nothing is left there, and the ranks
that remain go to the largest singular values of the rest. These come from a randomised range finder with two power
iterations (Halko, Martinsson, Tropp 2011, algorithm 4.4) that makes the change again in each pass, some rows at a time:
no change is ever whole in memory.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from weight_edit.edits.on_tensor import TensorEdit

_MORE = 8
"""Columns of the sketch beyond the rank."""
_PASSES = 2
_BLOCK = 1 << 20
"""Entries in float64 at a time."""

Changes: TypeAlias = Callable[[], Iterator[tuple[int, Tensor]]]
"""The change, some rows at a time, with the number of the first; made anew in each pass."""


@dataclass(frozen=True)
class Truncation:
    """What a smaller rank loses of a change D of a matrix W, as sums of squares, which add up over matrices.

    Attributes:
        change: |D|^2.
        lost: |D - B A|^2.
        inner: the inner product of D and B A.
        before: |V^T W|^2, the part along the directions.
        left: |V^T (W + B A)|^2.
    """

    change: float = 0.0
    lost: float = 0.0
    inner: float = 0.0
    before: float = 0.0
    left: float = 0.0

    @property
    def error(self) -> float:
        """|D - B A| / |D|."""
        return (max(0.0, self.lost) / self.change) ** 0.5 if self.change else 0.0

    @property
    def kept(self) -> float:
        """The share of the change that the factors make: the component of B A along D."""
        return self.inner / self.change if self.change else 1.0

    @property
    def left_along(self) -> float:
        """|V^T (W + B A)| / |V^T W|: what is left along the directions."""
        return (self.left / self.before) ** 0.5 if self.before else 0.0

    def to_dict(self) -> dict[str, float]:
        """Ready for JSON: the three ratios."""
        return {"error": self.error, "kept": self.kept, "left": self.left_along}


def total(losses: Iterable[Truncation]) -> Truncation:
    """The losses of several matrices together."""
    listed = list(losses)
    return Truncation(*(sum(getattr(each, field.name) for each in listed) for field in fields(Truncation)))


def factors_of_rows(edit: TensorEdit, rows: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Truncation | None]:
    """Factors of the change that an edit makes of vectors of the stream, of a rank at most.

    Args:
        edit: of the matrix; a constant of it belongs to every row.
        rows: (n, d_model), the matrix's vectors, in any dtype.
        rank: None for all that the edit has, which must be of low rank then.

    Returns:
        stream (d_model, k) and others (k, n), float32, with the change `(stream others)^T`; and what was lost, None
        for nothing.
    """
    stream, others = _exact(edit, rows)
    have = stream.shape[1]
    if not edit.keep_norms and (rank is None or have <= rank):
        return stream.float(), others.float(), None
    if rank is None:
        raise ValueError("lengths that are kept have full rank")
    if not edit.keep_norms:
        stream, others = _largest(stream, others, rank)
    elif have <= rank:
        found = _range(lambda: _changes(edit, rows, rest=True), rows.shape, rank - have)
        stream, others = torch.cat([stream, found[0]], dim=1), torch.cat([others, found[1]])
    else:
        stream, others = _range(lambda: _changes(edit, rows), rows.shape, rank)
    stream, others = stream.float(), others.float()
    return stream, others, _loss(edit, rows, stream.double(), others.double())


def factors_of_reader(edit: TensorEdit, rows: Tensor, rank: int | None) -> tuple[Tensor, Tensor, Truncation | None]:
    """Factors of the change that an edit makes of what reads the stream, of a rank at most.

    Args:
        edit: of the matrix: each row w becomes `w - (w^T right) left^T`.
        rows: (out, d_model), float32.
        rank: None for all that the edit has.

    Returns:
        a (k, d_model) and b (out, k), float32, with the change `b a`; and what was lost, None for nothing.
    """
    left, right, _ = edit.map.factors(rows.device, rows.dtype)
    a, b = left.T, -(rows @ right)
    if rank is None or rank >= len(a):
        return a, b, None
    found, kept = _largest(b.double(), a.double(), rank)
    exact, size = _square(b.double(), a.double()), _square(found, kept)
    basis = torch.linalg.qr(edit.map.factors(rows.device, torch.float64)[1])[0]
    before = torch.cat([block.double() @ basis for _, block in _blocks(rows)])
    after = before + found @ (kept @ basis)
    # The kept part is orthogonal to the rest.
    loss = Truncation(
        change=exact,
        lost=exact - size,
        inner=size,
        before=float(before.square().sum()),
        left=float(after.square().sum()),
    )
    return kept.float(), found.float(), loss


def _exact(edit: TensorEdit, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The low-rank part of the change, float64: all of it unless lengths are kept."""
    left, right, constant = edit.map.factors(rows.device, torch.float64)
    others = torch.cat([(block.double() @ right).T for _, block in _blocks(rows)], dim=1)
    if constant is None:
        return -left, others
    # Every row has a one there.
    return torch.cat([-left, constant[:, None]], dim=1), torch.cat([others, others.new_ones(1, len(rows))])


def _largest(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    q_left, r_left = torch.linalg.qr(left)
    q_right, r_right = torch.linalg.qr(right.T)
    u, sizes, v = torch.linalg.svd(r_left @ r_right.T)
    return q_left @ (u[:, :rank] * sizes[:rank]), v[:rank] @ q_right.T


def _square(left: Tensor, right: Tensor) -> float:
    """|left right|^2."""
    return float(((left.T @ left) * (right @ right.T)).sum())


def _blocks(rows: Tensor) -> Iterator[tuple[int, Tensor]]:
    step = max(1, _BLOCK // rows.shape[1])
    for first in range(0, len(rows), step):
        yield first, rows[first : first + step]


def _changes(edit: TensorEdit, rows: Tensor, rest: bool = False) -> Iterator[tuple[int, Tensor]]:
    """The change of some rows at a time, float64; without its low-rank part where `rest`."""
    left, right, _ = edit.map.factors(rows.device, torch.float64)
    for first, block in _blocks(rows):
        before = block.double()
        change = edit.map.on_stored(before, 1, keep_norms=edit.keep_norms) - before
        yield first, change + (before @ right) @ left.T if rest else change


def _range(changes: Changes, shape: torch.Size, rank: int) -> tuple[Tensor, Tensor]:
    """The factors of the largest singular values: (d_model, rank) orthonormal, and (rank, n)."""
    n, width = shape
    count = min(rank + _MORE, n, width)
    sketch = torch.zeros(width, count, dtype=torch.float64)
    for first, change in changes():
        draw = np.random.default_rng([11, first]).standard_normal((len(change), count))
        sketch += change.T @ torch.from_numpy(draw)
    for _ in range(_PASSES):
        basis = torch.linalg.qr(sketch)[0]
        sketch = torch.zeros_like(sketch)
        for _, change in changes():
            sketch += change.T @ (change @ basis)
    basis = torch.linalg.qr(sketch)[0]
    inside = torch.cat([(change @ basis).T for _, change in changes()], dim=1)
    values, vectors = torch.linalg.eigh(inside @ inside.T)
    chosen = vectors[:, values.argsort(descending=True)[:rank]]
    return basis @ chosen, chosen.T @ inside


def _loss(edit: TensorEdit, rows: Tensor, stream: Tensor, others: Tensor) -> Truncation:
    basis = torch.linalg.qr(edit.map.factors(rows.device, torch.float64)[1])[0]
    sums = torch.zeros(5, dtype=torch.float64)
    for first, change in _changes(edit, rows):
        made = (stream @ others[:, first : first + len(change)]).T
        before = rows[first : first + len(change)].double()
        sizes = (change.square(), (change - made).square(), change * made)
        along = ((before @ basis).square(), ((before + made) @ basis).square())
        sums += torch.stack([each.sum() for each in (*sizes, *along)])
    return Truncation(*sums.tolist())
