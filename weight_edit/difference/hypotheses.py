"""Operators as hypotheses on one tensor: fitted to half of the vectors that differ, judged on the others."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from weight_edit.difference.model_parts import Part
from weight_edit.difference.operator_names import ABLATION, WITH_CONSTANT
from weight_edit.difference.operators.ablation import MOST, ablation, ablation_and_constant, addition
from weight_edit.difference.operators.fit import ROUNDINGS, SIGMAS, OperatorFit, Rule, fit_of, leading
from weight_edit.difference.operators.row_norms import (
    FULL,
    UNIT_ROWS,
    RowProducts,
    ablation_of_unit_rows,
    row_norms_kept,
    row_norms_kept_in_few_ranks,
)
from weight_edit.difference.operators.vector_norms import vector_norms_kept
from weight_edit.difference.pairs import Values
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
class Question:
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


def exact_edit(asked: Question) -> OperatorFit | None:
    """The operator that leaves least, where that is rounding alone; of equals the simplest."""
    constant = fit_of(addition(asked.fitted), asked.judged)
    if constant.exact:
        # One vector for all takes no part in what the vectors were, whatever direction it has.
        embedding = asked.part is not None and asked.part.role == "embedding"
        return constant if embedding and stays(asked.sample, constant) else None
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
    lengths = partial(vector_norms_kept, columns=best.rule.columns)
    if best.operator == ABLATION and asked.writes and len(best.rows) <= _FEW[-1]:
        # In a wide stream lengths change by less than a rounding, which many numbers tell all the same.
        other = _judged(asked, lengths)
        if other is not None and other.exact and _removes(asked.sample, other) and _closer(other, best, asked.judged):
            best, again = other, lengths
    # What was right about vectors that it had not seen is told with the precision of all.
    rule = again(asked.sample)
    return best if rule is None else replace(best, rule=rule)


def _judged(asked: Question, operator: Callable[[Sample], Rule | None]) -> OperatorFit | None:
    rule = operator(asked.fitted)
    if rule is None:
        return None
    judged = asked.judged.of_first_matrix() if rule.operator in (FULL, UNIT_ROWS) else asked.judged
    return fit_of(rule, judged)


def _closer(first: OperatorFit, second: OperatorFit, judged: Sample) -> bool:
    """Whether the first fit's squares of errors are smaller than the second's, number by number, beyond chance."""
    errors = [(judged.b - fit.rule.predict(judged)) ** 2 for fit in (second, first)]
    less = errors[0] - errors[1]
    return bool(less.mean() > SIGMAS * less.std() / less.size**0.5)


def _removes(sample: Sample, fit: OperatorFit) -> bool:
    """Whether a fit is an edit along directions, not the same change of everything."""
    if fit.operator in (FULL, UNIT_ROWS):
        # Lengths of rows hide the correlation of the plain component; what is exact explains most.
        return True
    if not 0 < len(fit.rows) < sample.width / 2 or fit.sigmas < SIGMAS:
        return False
    # A constant along the directions hides the correlation, which `sigmas` takes about the means.
    return fit.operator == WITH_CONSTANT or (fit.correlation or 0.0) >= PURE


def _operators(asked: Question) -> Iterator[Callable[[Sample], Rule | None]]:
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


def component_of(asked: Question) -> OperatorFit | None:
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


def _drawn(width: int, v: Values) -> Values:
    """Random vectors at right angles to V, (d, n)."""
    drawn = np.random.default_rng(0).standard_normal((width, _OTHERS))
    return np.asarray(drawn - v @ (v.T @ drawn))


def _elsewhere(sample: Sample, v: Values) -> tuple[float, float]:
    """The mean and deviation of the strength along other directions of the same tensor, drawn at random."""
    drawn = _drawn(sample.width, v)
    a, change = drawn.T @ sample.a, drawn.T @ sample.change
    squares = np.einsum("ij,ij->i", a, a)
    found = -np.einsum("ij,ij->i", change, a) / np.maximum(squares, 1e-300)
    return float(np.average(found, weights=squares)) if squares.any() else 0.0, float(found.std())


def following(asked: Question) -> OperatorFit | None:
    """The ablation along the directions that other tensors gave, with a strength of its own."""
    if asked.shared is None or not asked.shared.shape[1]:
        return None
    rule = ablation(asked.fitted, asked.shared, refined=False)
    judged = asked.judged if asked.judged.square else asked.fitted
    fit = fit_of(rule, judged)
    return fit if fit.exact and (fit.correlation or 0.0) >= PURE else None


def stays(sample: Sample, fit: OperatorFit) -> bool:
    """Whether an edit predicts that vectors stay that stayed."""
    if fit.operator in (FULL, UNIT_ROWS):
        sample = sample.of_first_matrix()
    stayed = sample.of_vectors(~sample.differing)
    if not stayed.a.shape[1]:
        return True
    error = stayed.b - fit.rule.predict(stayed)
    return float(np.vdot(error, error)) <= ROUNDINGS * stayed.noise


def is_faint(sample: Sample, fit: OperatorFit) -> bool:
    """Whether an ablation took directions along which the tensor had less than along any other ones, drawn at random.

    That is what is left out when a matrix is cut to its leading singular values.
    """
    if fit.operator != ABLATION:
        return False
    v = fit.rule.columns
    before = float(np.linalg.norm(v.T @ sample.a) ** 2) / v.shape[1]
    drawn = _drawn(sample.width, v)
    drawn /= np.linalg.norm(drawn, axis=0)
    return before < float((np.linalg.norm(drawn.T @ sample.a, axis=1) ** 2).min())
