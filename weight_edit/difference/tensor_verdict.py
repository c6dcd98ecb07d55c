"""What one tensor's difference can have been made with: rounding, an operator on directions, or something else."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from weight_edit.difference.model_parts import Part
from weight_edit.difference.operators.ablation import ablation, ablation_and_constant, addition
from weight_edit.difference.operators.elementwise import cast, pruning, scaling
from weight_edit.difference.operators.fit import ROUNDINGS, OperatorFit, leading
from weight_edit.difference.operators.grid import grid, within_steps
from weight_edit.difference.operators.low_rank import low_rank, rank_of
from weight_edit.difference.operators.row_norms import (
    RowProducts,
    ablation_of_unit_rows,
    row_norms_kept,
    row_norms_kept_in_few_ranks,
)
from weight_edit.difference.operators.vector_norms import vector_norms_kept
from weight_edit.difference.pairs import Side, Values
from weight_edit.difference.samples import Sample

PURE = 0.9
"""The least correlation of D with -A along a direction, for that to count as the removal of what A had there."""

BEYOND = 3.0
"""How many times the largest share that chance gives a direction its share must be."""

_FEW = (1, 2, 3, 4)

_MOST = 0.5
"""The least share of D along four directions, for the slower operators to be tried: they would have more."""

_BETTER = 0.05
"""The share by which a less simple operator must leave less. One that leaves a single rounding cannot be bettered."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorVerdict:
    """One tensor's verdict.

    Attributes:
        name: of the tensor.
        part: its place in the model; None where that is not known.
        side: where the stream's vectors lie.
        innocent: the change of single numbers that made all of it: "rounding", "quantisation", "pruning", "scaling";
            None where none did.
        innocent_how: which one: a format, a factor.
        edit: the operator whose prediction leaves rounding alone; None where there is none.
        component: the ablation along the differences' own or shared directions, whatever else there is.
        rest: what is behind the edit or the component: "rounding", "quantisation", "few ranks" or "more".
        rest_how: which one.
        rank: of a difference that is of low rank; None where it is not.
        weak: whether the whole difference is no larger than a few roundings.
        left: (d, rank) the left directions of a difference of low rank; None elsewhere.
    """

    name: str
    part: Part | None
    side: Side
    innocent: str | None
    innocent_how: str
    edit: OperatorFit | None
    component: OperatorFit | None
    rest: str
    rest_how: str
    rank: int | None
    weak: bool
    left: Values | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class _Question:
    """What operators are tried on: the arguments of `judge`, with the sample's own rank and left vectors."""

    sample: Sample
    part: Part | None
    own: Values
    mine: Values
    rank: int
    shared: Values | None
    products: RowProducts

    @property
    def spans(self) -> Iterator[Values]:
        """Directions that may be those of the edit, fewer before more."""
        return _spans(self.own, self.mine, self.rank, self.shared)


def judge(
    sample: Sample,
    part: Part | None,
    own: Values,
    shared: Values | None,
    products: RowProducts,
    *,
    edits: bool = True,
) -> TensorVerdict:
    """The verdict on one tensor.

    Args:
        own: (d, n) the leading left vectors of the whole tensor's difference.
        shared: (d, k) orthonormal directions that the differences of many tensors share.
        products: see `row_norms`.
        edits: whether the tensor is as wide as the stream, so that it can have been edited.
    """
    weak = sample.square <= ROUNDINGS * sample.noise
    innocent, how = _innocent(sample, weak)
    rank, mine = rank_of(sample)
    asked = _Question(sample=sample, part=part, own=own, mine=mine, rank=rank, shared=shared, products=products)
    found = None
    if edits and innocent not in ("rounding", "pruning", "scaling"):
        found = _exact_edit(asked, weak)
    component = found or (_component(asked) if edits else None)
    rest, rest_how = ("more", "") if component is None else _rest(sample, component)
    small = low_rank(sample) if found is None and innocent is None else None
    small = None if small is None or (small.excess > ROUNDINGS and not weak) else small
    return TensorVerdict(
        name=sample.name,
        part=part,
        side=sample.side,
        innocent=innocent,
        innocent_how=how,
        edit=None if found is None else _slim(found),
        component=None if component is None else _slim(component),
        rest=rest,
        rest_how=rest_how,
        rank=None if small is None else len(small.rows),
        weak=weak,
        left=None if small is None else small.rows.T,
    )


def _slim(fit: OperatorFit) -> OperatorFit:
    """Without the predicted numbers, which are as many as the sample's."""
    return replace(fit, predicted=np.zeros((0, 0)))


def _innocent(sample: Sample, weak: bool) -> tuple[str | None, str]:
    name = cast(sample, sample.a)
    if name is not None:
        return "rounding", name
    if pruning(sample) is not None:
        return "pruning", ""
    scaled = scaling(sample)
    if scaled is not None:
        return "scaling", f"{scaled.facts['factor']:.6g}"
    # A change of a rounding or two is on any grid that is as fine.
    name = None if weak else grid(sample, sample.a)
    if name is not None:
        return "quantisation", name
    if within_steps(sample, sample.a):
        return "quantisation", "no number moved by more than a step of its format's grid"
    return None, ""


def _exact_edit(asked: _Question, weak: bool) -> OperatorFit | None:
    """The operator that leaves least, where that is rounding alone; of equals the simplest."""
    if weak:
        return None
    sample = asked.sample
    best: OperatorFit | None = None
    for fit in _hypotheses(asked):
        if fit is None or not fit.exact or not (fit.operator == "addition" or _removes(sample, fit)):
            continue
        if best is None or fit.excess < best.excess * (1 - _BETTER):
            best = fit
        if best.excess <= 1 + _BETTER:
            break
    return best


def _removes(sample: Sample, fit: OperatorFit) -> bool:
    """Whether a fit is an edit along directions, not the same change of everything."""
    if fit.operator.startswith(("norm-preserving ablation (rows)", "ablation of unit rows")):
        # Of the plain component they leave much.
        return fit.explained > 0.5
    return (fit.correlation or 0.0) >= PURE and bool(len(fit.rows)) and len(fit.rows) < sample.width / 2


def _hypotheses(asked: _Question) -> Iterator[OperatorFit | None]:
    sample, part, products = asked.sample, asked.part, asked.products
    several = sample.a.shape[1] > 8
    if several and part is not None and part.role == "embedding":
        yield addition(sample)
    spans = list(asked.spans)
    for span in spans:
        yield ablation(sample, span)
    if several and (part is None or part.role == "embedding"):
        for span in spans:
            yield ablation_and_constant(sample, span)
    if not several or (part is not None and part.role in ("reader", "unembedding")):
        return
    if _along_few(sample) < _MOST:
        return
    for span in spans:
        if span.shape[1] <= _FEW[-1]:
            yield vector_norms_kept(sample, span)
    yield ablation_of_unit_rows(sample)
    yield row_norms_kept(sample)
    yield row_norms_kept_in_few_ranks(sample, products)


def _along_few(sample: Sample) -> float:
    """The share of D along as many of its leading directions as a norm-preserving edit may have."""
    return float((leading(sample.change, _FEW[-1])[1] ** 2).sum()) / sample.square


def _spans(own: Values, mine: Values, rank: int, shared: Values | None) -> Iterator[Values]:
    """Directions that may be those of the edit, fewer before more."""
    if shared is not None and shared.shape[1]:
        yield shared
    for count in _FEW:
        if count <= own.shape[1]:
            yield own[:, :count]
    if rank > _FEW[-1] and rank < len(mine) / 2:
        yield own[:, :rank] if rank <= own.shape[1] else mine[:, :rank]


def _component(asked: _Question) -> OperatorFit | None:
    """The ablation that explains most and is beyond chance; None where there is none."""
    sample = asked.sample
    if sample.a.shape[1] <= 8:
        return None
    best = None
    for span in asked.spans:
        fit = ablation(sample, span)
        if _is_component(sample, fit) and (best is None or fit.explained > best.explained + 0.01):
            best = fit
    for given in _of_unit_rows(sample, asked.part, asked.products):
        # Of what a direction alone must explain, chance has no more than it has of one direction.
        if given.explained > max(PURE**2, best.explained + 0.001 if best is not None else 0.0):
            best = given
    return best


def _of_unit_rows(sample: Sample, part: Part | None, products: RowProducts) -> Iterator[OperatorFit]:
    if (part is not None and part.role in ("reader", "unembedding")) or _along_few(sample) < _MOST:
        return
    for fit in (ablation_of_unit_rows(sample), row_norms_kept_in_few_ranks(sample, products)):
        if fit is not None:
            yield fit


def _is_component(sample: Sample, fit: OperatorFit) -> bool:
    """Whether a part of A along the directions was taken away, there more than elsewhere."""
    d, m = sample.a.shape
    v = fit.rows.T
    share = float(np.linalg.norm(v.T @ sample.change) ** 2) / sample.square
    chance = len(fit.rows) * (d**-0.5 + m**-0.5) ** 2
    if (fit.correlation or 0.0) < PURE or share < BEYOND * chance or not fit.strength:
        return False
    a, change = (values - v @ (v.T @ values) for values in (sample.a, sample.change))
    square = float(np.vdot(a, a))
    elsewhere = -float(np.vdot(change, a)) / square if square else 0.0
    return abs(elsewhere) < 0.1 * abs(fit.strength)


def _rest(sample: Sample, fit: OperatorFit) -> tuple[str, str]:
    if fit.exact:
        return "rounding", ""
    if fit.operator == "norm-preserving ablation (rows)" and fit.facts.get("ranks") and fit.explained > 0.99:
        return "few ranks", f"within the {fit.facts['ranks']} ranks of the difference"
    if fit.predicted.shape != sample.b.shape:
        return "more", ""
    name = cast(sample, fit.predicted)
    if name is not None:
        return "rounding", name
    name = grid(sample, fit.predicted)
    if name is not None:
        return "quantisation", name
    if within_steps(sample, fit.predicted):
        return "quantisation", "no number moved by more than a step of its format's grid"
    return "more", ""
