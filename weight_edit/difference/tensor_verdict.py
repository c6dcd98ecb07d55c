"""What one tensor's difference can have been made with: rounding, an operator on directions, or something else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.model_parts import Part
from weight_edit.difference.operator_names import WITH_CONSTANT
from weight_edit.difference.operators.ablation import MOST, ablation, ablation_and_constant, addition
from weight_edit.difference.operators.elementwise import cast, pruning, scaling
from weight_edit.difference.operators.fit import ROUNDINGS, SIGMAS, OperatorFit, Rule, fit_of, leading
from weight_edit.difference.operators.grid import grid, within_steps
from weight_edit.difference.operators.low_rank import low_rank, rank_of
from weight_edit.difference.operators.row_norms import (
    FULL,
    UNIT_ROWS,
    RowProducts,
    ablation_of_unit_rows,
    row_norms_kept,
    row_norms_kept_in_few_ranks,
)
from weight_edit.difference.operators.vector_norms import vector_norms_kept
from weight_edit.difference.pairs import Side, Values
from weight_edit.difference.samples import Sample

PURE = 0.9
"""The least correlation of D with -A along a direction, for that to count as the removal of what A had there.

By definition, not by tuning: four fifths of what a difference has along it are then a multiple of what was there.
"""

BEYOND = 3.0
"""How many times the largest share that chance gives a direction its share must be.

The largest singular value of noise is that of chance; three times its square is what noise of heavier tails has not.
"""

_ELSEWHERE = 0.1
"""The strength with which all of A may have shrunk off the directions, as a share of that along them."""

LEAST = 16
"""The fewest differing vectors that an operator is fitted to, and judged on, each.

Of 16 numbers a correlation of .9 comes up by chance once in a million.
"""

_FEW = (1, 2, 3, 4)

_MOST_NORMS = 0.5
"""The least share of D along four directions, for the slower operators to be tried: they would have more."""

_BETTER = 0.5
"""The share of what is left that a less simple operator may leave: both are exact, a little less is its freedom."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorVerdict:
    """One tensor's verdict.

    Attributes:
        name: of the tensor.
        part: its place in the model; None where that is not known.
        side: where the stream's vectors lie.
        innocent: the change of single numbers or vectors that made all of it: "rounding", "quantisation", "pruning",
            "scaling", "vectors" (some vectors are others, the rest stayed); None where none did.
        innocent_how: which one: a format, a factor, how many vectors.
        edit: the operator whose prediction leaves rounding alone; None where there is none.
        component: the ablation along the differences' own or shared directions, whatever else there is.
        rest: what is behind the edit or the component: "rounding", "quantisation", "few ranks" or "more".
        rest_how: which one.
        rank: of a difference that is of low rank; None where it is not.
        weak: whether the whole difference is no larger than a few roundings.
        left: (d, rank) float32, the left directions of a difference of a low rank of at most `MOST`; None elsewhere.
        follows: the ablation along the shared directions, of a tensor with too few vectors to tell one by itself; it
            says something only where other tensors have that edit.
        some: "N of M vectors" where an edit is one of a part of the vectors; else "".
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
    left: NDArray[np.float32] | None = None
    follows: OperatorFit | None = None
    some: str = ""

    @property
    def fit(self) -> OperatorFit:
        """What was done to a tensor that was edited."""
        found = self.edit or self.component or self.follows
        assert found is not None, f"{self.name} was not edited"
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class _Question:
    """What operators are tried on: the arguments of `judge`, the sample's halves, and directions of the first half.

    Attributes:
        mine: (d, n) the left directions of the first half's difference.
        rank: how many of those are above rounding.
    """

    sample: Sample
    fitted: Sample
    judged: Sample
    part: Part | None
    own: Values
    mine: Values
    rank: int
    shared: Values | None
    products: RowProducts

    @cached_property
    def spans(self) -> list[Values]:
        """Directions that may be those of the edit, fewer before more."""
        found = [self.shared] if self.shared is not None and self.shared.shape[1] else []
        # Where not all vectors are here, those of the whole tensor are nearer to the truth.
        own = self.mine if self.sample.whole or not self.own.size else self.own
        found += [own[:, :count] for count in _FEW if count <= own.shape[1]]
        if _FEW[-1] < self.rank <= min(MOST, self.sample.width // 2):
            found.append(self.mine[:, : self.rank])
        return found

    @cached_property
    def able(self) -> bool:
        """Whether there are vectors enough to fit an operator to and to judge it on."""
        return min(_differing(self.fitted), _differing(self.judged)) >= LEAST

    @property
    def writes(self) -> bool:
        """Whether the tensor may write to the stream."""
        return self.part is None or self.part.writes

    def allows(self, span: Values) -> bool:
        """Whether many more vectors are judged than there are directions."""
        return _differing(self.judged) >= 2 * span.shape[1]


def _differing(sample: Sample) -> int:
    return int(np.count_nonzero(sample.differing))


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

    Operators are fitted to one half of the vectors that differ, and judged on the other.

    Args:
        own: (d, n) the leading left vectors of the whole tensor's difference.
        shared: (d, k) orthonormal directions that the differences of many tensors share.
        products: see `row_norms`.
        edits: whether the tensor is as wide as the stream, so that it can have been edited.
    """
    weak = sample.square <= ROUNDINGS * sample.noise
    innocent, how = _innocent(sample, weak)
    fitted, judged = sample.halves
    rank, mine = rank_of(fitted)
    asked = _Question(
        sample=sample,
        fitted=fitted,
        judged=judged,
        part=part,
        own=own,
        mine=mine,
        rank=rank,
        shared=shared,
        products=products,
    )
    tried = edits and innocent not in ("rounding", "pruning", "scaling")
    found = _exact_edit(asked) if tried and asked.able and not weak else None
    some = "" if found is None or _stay(sample, found) else _counted(sample)
    component = found or (_component(asked) if edits and asked.able else None)
    follows = _following(asked) if tried and not asked.able and not weak else None
    if innocent is None and found is None and _some_vectors(sample):
        innocent, how, component = "vectors", _counted(sample), None
    rest, rest_how = ("more", "") if component is None else _rest(sample, component)
    small = low_rank(sample) if found is None and innocent is None else None
    small = None if small is None or (small[1] > ROUNDINGS and not weak) else small
    return TensorVerdict(
        name=sample.name,
        part=part,
        side=sample.side,
        innocent=innocent,
        innocent_how=how,
        edit=None if found is None else slim(found),
        component=None if component is None else slim(component),
        rest=rest,
        rest_how=rest_how,
        rank=None if small is None else small[0].shape[1],
        weak=weak,
        left=None if small is None or small[0].shape[1] > MOST else small[0].astype(np.float32),
        follows=None if follows is None else slim(follows),
        some=some,
    )


def slim(fit: OperatorFit) -> OperatorFit:
    """Without the rule's prediction, which holds on to the sample; directions in float32."""
    rule = fit.rule
    facts = {key: value for key, value in rule.facts.items() if key == "constant" or np.isscalar(value)}
    return replace(fit, rule=replace(rule, columns=rule.columns.astype(np.float32), predict=_gone, facts=facts))


def _gone(sample: Sample) -> Values:
    raise ValueError("the prediction is no longer there")


def _some_vectors(sample: Sample) -> bool:
    """Whether most vectors stayed as they were, or fewer changed than an edit can be told by."""
    return sample.changed < max(2 * LEAST, sample.vectors / 2)


def _stay(sample: Sample, fit: OperatorFit) -> bool:
    """Whether an edit predicts that vectors stay that stayed."""
    if fit.operator in (FULL, UNIT_ROWS):
        sample = sample.of_first_matrix()
    stayed = sample.of_vectors(~sample.differing)
    if not stayed.a.shape[1]:
        return True
    error = stayed.b - fit.rule.predict(stayed)
    return float(np.vdot(error, error)) <= ROUNDINGS * stayed.noise


def _counted(sample: Sample) -> str:
    return f"{sample.changed} of {sample.vectors} vectors"


def _innocent(sample: Sample, weak: bool) -> tuple[str | None, str]:
    name = cast(sample, sample.a)
    if name is not None:
        return "rounding", name
    pruned = pruning(sample)
    if pruned is not None:
        return "pruning", pruned
    factor = scaling(sample)
    if factor is not None:
        return "scaling", f"{factor:.6g}"
    # A change of a rounding or two is on any grid that is as fine.
    name = None if weak else grid(sample, sample.a)
    if name is not None:
        return "quantisation", name
    if within_steps(sample, sample.a):
        return "quantisation", STEPS
    return None, ""


STEPS = "no number moved by more than a step of its format's grid"


def _exact_edit(asked: _Question) -> OperatorFit | None:
    """The operator that leaves least, where that is rounding alone; of equals the simplest."""
    constant = fit_of(addition(asked.fitted), asked.judged)
    if constant.exact:
        # One vector for all takes no part in what the vectors were, whatever direction it has.
        embedding = asked.part is not None and asked.part.role == "embedding"
        return constant if embedding and _stay(asked.sample, constant) else None
    best: OperatorFit | None = None
    again: Callable[[Sample], Rule | None] | None = None
    for operator in _operators(asked):
        fit = _judged(asked, operator)
        if fit is None or not fit.exact or not _removes(asked.sample, fit):
            continue
        if best is None or fit.excess < best.excess * _BETTER:
            best, again = fit, operator
        # Nothing leaves less than a rounding.
        if best.excess * _BETTER <= 1:
            break
    if best is None or again is None:
        return None
    # What was right about vectors that it had not seen is told with the precision of all.
    rule = again(asked.sample)
    return best if rule is None else replace(best, rule=rule)


def _judged(asked: _Question, operator: Callable[[Sample], Rule | None]) -> OperatorFit | None:
    rule = operator(asked.fitted)
    if rule is None:
        return None
    judged = asked.judged.of_first_matrix() if rule.operator in (FULL, UNIT_ROWS) else asked.judged
    return fit_of(rule, judged)


def _removes(sample: Sample, fit: OperatorFit) -> bool:
    """Whether a fit is an edit along directions, not the same change of everything."""
    if fit.operator in (FULL, UNIT_ROWS):
        # Lengths of rows hide the correlation of the plain component; what is exact explains most.
        return True
    if not 0 < len(fit.rows) < sample.width / 2 or fit.sigmas < SIGMAS:
        return False
    # A constant along the directions hides the correlation, which `sigmas` takes about the means.
    return fit.operator == WITH_CONSTANT or (fit.correlation or 0.0) >= PURE


def _operators(asked: _Question) -> Iterator[Callable[[Sample], Rule | None]]:
    spans = [span for span in asked.spans if asked.allows(span)]
    for span in spans:
        yield partial(ablation, columns=span)
    if asked.part is None or asked.part.role == "embedding":
        for count in _FEW:
            yield partial(ablation_and_constant, count=count)
    if not asked.writes or _along_few(asked.fitted) < _MOST_NORMS:
        return
    for span in spans:
        if span.shape[1] <= _FEW[-1]:
            yield partial(vector_norms_kept, columns=span)
    yield ablation_of_unit_rows
    yield row_norms_kept
    yield partial(row_norms_kept_in_few_ranks, products=asked.products)


def _along_few(sample: Sample) -> float:
    """The share of D along as many of its leading directions as a norm-preserving edit may have."""
    return float((leading(sample.change, _FEW[-1])[1] ** 2).sum()) / sample.square if sample.square else 0.0


def _component(asked: _Question) -> OperatorFit | None:
    """The ablation that explains most and is beyond chance; None where there is none."""
    best = None
    for span in asked.spans:
        fit = _judged(asked, partial(ablation, columns=span)) if asked.allows(span) else None
        if fit is not None and _is_component(asked.judged, fit):
            best = fit if best is None or fit.explained > best.explained + 0.01 else best
    if not asked.writes or _along_few(asked.fitted) < _MOST_NORMS:
        return best
    for operator in (ablation_of_unit_rows, partial(row_norms_kept_in_few_ranks, products=asked.products)):
        fit = _judged(asked, operator)
        # Of what a direction alone must explain, chance has no more than it has of one direction.
        if fit is not None and fit.explained > max(PURE**2, best.explained + 0.001 if best is not None else 0.0):
            best = fit
    return best


def _is_component(sample: Sample, fit: OperatorFit) -> bool:
    """Whether a part of A along the directions was taken away, there more than elsewhere."""
    d, m = sample.a.shape
    v = fit.rule.columns
    share = float(np.linalg.norm(v.T @ sample.change) ** 2) / sample.square
    chance = v.shape[1] * (d**-0.5 + m**-0.5) ** 2
    if (fit.correlation or 0.0) < PURE or fit.sigmas < SIGMAS or share < BEYOND * chance or not fit.strength:
        return False
    mean, deviation = _elsewhere(sample, v)
    return abs(mean) < _ELSEWHERE * abs(fit.strength) and abs(fit.strength - mean) > SIGMAS * deviation


_OTHERS = 32


def _elsewhere(sample: Sample, v: Values) -> tuple[float, float]:
    """The mean and deviation of the strength along other directions of the same tensor, drawn at random."""
    drawn = np.random.default_rng(0).standard_normal((sample.width, _OTHERS))
    drawn -= v @ (v.T @ drawn)
    a, change = drawn.T @ sample.a, drawn.T @ sample.change
    squares = np.einsum("ij,ij->i", a, a)
    found = -np.einsum("ij,ij->i", change, a) / np.maximum(squares, 1e-300)
    return float(np.average(found, weights=squares)) if squares.any() else 0.0, float(found.std())


def _following(asked: _Question) -> OperatorFit | None:
    """The ablation along the directions that other tensors gave, with a strength of its own."""
    if asked.shared is None or not asked.shared.shape[1]:
        return None
    rule = ablation(asked.fitted, asked.shared, refined=False)
    judged = asked.judged if asked.judged.square else asked.fitted
    fit = fit_of(rule, judged)
    return fit if fit.exact and (fit.correlation or 0.0) >= PURE else None


def _rest(sample: Sample, fit: OperatorFit) -> tuple[str, str]:
    if fit.exact:
        return "rounding", ""
    ranks = fit.rule.facts.get("ranks")
    if fit.operator == FULL and ranks and fit.explained > 0.99:
        return "few ranks", f"within the {ranks} ranks of the difference"
    if fit.operator in (FULL, UNIT_ROWS):
        sample = sample.of_first_matrix()
    wanted = fit.rule.predict(sample)
    name = cast(sample, wanted)
    if name is not None:
        return "rounding", name
    name = grid(sample, wanted)
    if name is not None:
        return "quantisation", name
    if within_steps(sample, wanted):
        return "quantisation", STEPS
    return "more", ""
