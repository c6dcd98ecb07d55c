"""The false-refusal direction: over-refusal's difference in means, less rightful refusal's."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.directions.vectors import cosine, without_span
from weight_edit.errors import UsageError
from weight_edit.utils.settings import Section


class FalseRefusalOptions(Section):
    """Settings of the false-refusal direction.

    Attributes:
        strength: share of the protected part that is taken off; 1 all of it, 0 none.
        each: with several target sets, one direction for each of them (over-refusal lies in the clusters of its tasks,
            arXiv 2603.27518), instead of one for all.
        protected: with several protected sets, whether the "span" of all their directions is taken off, or the "mean"
            direction of all their prompts together, which leaves more of the target's own.
    """

    strength: Annotated[float, Field(ge=0)] = 1.0
    each: bool = False
    protected: Literal["span", "mean"] = "span"


@finder("false-refusal", paper="2410.03415", induces=False, everywhere=True)
def false_refusal(problem: Problem, options: FalseRefusalOptions) -> list[Candidate]:
    """Over-refusal's difference in means without its component along the protected refusals.

    At each place `w = mean(target) - mean(baseline)`, where the target is what is refused without need, and
    `v = mean(protected) - mean(baseline)`, where the protected prompts are refused rightly; then
    `w' = w - strength * v (v^T w)` with unit v, for several protected sets with an orthonormal basis of theirs.
    Facts: the cosine of w with each v and the share of its length that is left, for each direction.

    Raises:
        UsageError: no protected set, a prompt shorter than the positions reach back, or memory runs out.
    """
    if not problem.protected:
        raise UsageError(
            "method false-refusal spares the refusals of protected prompts, and none were given; "
            "name at least one set to protect: prompts that should still be refused"
        )
    baseline = problem.of(problem.baseline).double().mean(dim=0)

    def towards(x: Tensor) -> Tensor:
        return mean_difference(x.double().mean(dim=0), baseline)

    pooled = towards(problem.target())
    several, names = [pooled], ["all targets" if len(problem.targets) > 1 else problem.targets[0].name]
    if options.each:
        several = [towards(problem.of(sample)) for sample in problem.targets]
        names = [sample.name for sample in problem.targets]
    spared = [(sample.name, towards(problem.of(sample))) for sample in problem.protected]
    if options.protected == "mean":
        spared = [("all protected", towards(torch.cat([problem.of(sample) for sample in problem.protected])))]

    candidates = []
    for p, layer in problem.places:
        before = torch.stack([w[p, layer] for w in several])
        v = torch.stack([direction[p, layer] for _, direction in spared])
        rows = without_span(before, v, options.strength)
        facts = [
            {
                "target": name,
                "cosines": {other: cosine(w, direction) for (other, _), direction in zip(spared, v, strict=True)},
                "left": float(left.norm() / w.norm()) if bool(w.any()) else 0.0,
            }
            for name, w, left in zip(names, before, rows, strict=True)
        ]
        vector = without_span(pooled[p, layer][None], v, options.strength)[0]
        candidates.append(
            Candidate(
                position=problem.positions[p],
                layer=problem.layers[layer],
                rows=rows,
                vector=vector,
                facts={"protected": facts},
            )
        )
    return candidates
