"""What one tensor's difference can have been made with: rounding, an operator on directions, or something else."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.hypotheses import LEAST, Question, component_of, exact_edit, following, is_faint, stays
from weight_edit.difference.model_parts import Part
from weight_edit.difference.operators.ablation import MOST
from weight_edit.difference.operators.elementwise import cast, pruning, scaling
from weight_edit.difference.operators.fit import ROUNDINGS, OperatorFit
from weight_edit.difference.operators.grid import grid, within_steps
from weight_edit.difference.operators.low_rank import low_rank, rank_of
from weight_edit.difference.operators.row_norms import FULL, UNIT_ROWS, RowProducts
from weight_edit.difference.pairs import Side, Values
from weight_edit.difference.samples import Sample


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorVerdict:
    """One tensor's verdict.

    Attributes:
        name: of the tensor.
        part: its place in the model; None where that is not known.
        side: where the stream's vectors lie.
        innocent: the change of single numbers or vectors that made all of it: "rounding", "quantisation", "pruning",
            "scaling", "vectors" (some vectors are others, the rest stayed), "folded" (a norm's gains were multiplied
            in), "compression" (cut to the leading singular values); None where none did.
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
        faint: whether the edit or component took what the tensor had least of.
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
    faint: bool = False

    @property
    def fit(self) -> OperatorFit:
        """What was done to a tensor that was edited."""
        found = self.edit or self.component or self.follows
        assert found is not None, f"{self.name} was not edited"
        return found


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
    asked = Question(
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
    found = exact_edit(asked) if tried and asked.able and not weak else None
    some = "" if found is None or stays(sample, found) else _counted(sample)
    component = found or (component_of(asked) if edits and asked.able else None)
    follows = following(asked) if tried and not asked.able and not weak else None
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
        faint=component is not None and is_faint(sample, component),
    )


def folded_reader(sample: Sample, part: Part | None) -> TensorVerdict:
    """The verdict on a reader into which the gains of its norm went, and nothing else."""
    return TensorVerdict(
        name=sample.name,
        part=part,
        side=sample.side,
        innocent="folded",
        innocent_how="",
        edit=None,
        component=None,
        rest="",
        rest_how="",
        rank=None,
        weak=False,
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
