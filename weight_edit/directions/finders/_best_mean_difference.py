"""The best difference in means, where other searches start."""

from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import MeanDifferenceOptions, mean_differences
from weight_edit.directions.measuring import staged
from weight_edit.directions.problem import Problem
from weight_edit.directions.selection import SelectionRule, least_bad, select
from weight_edit.errors import UsageError


def best_mean_difference(problem: Problem, layer: int | None = None) -> Candidate:
    """The difference in means that the rule of arXiv 2406.11717 takes, with its bounds.

    That is the lowest bypass score, or without refusal tokens the highest similarity; where none keeps the bounds, the
    one that misses them least.

    Args:
        layer: only at the input of this one.

    Raises:
        UsageError: a layer that the model has not, or all differences there are zero.
    """
    if layer is not None and layer not in problem.layers:
        raise UsageError(f"layer {layer} does not exist: the model's are 0 to {problem.layers[-1]}")
    allowed = range(problem.allowed) if layer is None else (layer,)
    candidates = [c for c in mean_differences(problem, MeanDifferenceOptions()) if c.layer in allowed]
    rule = SelectionRule(max_layer_fraction=None, select="bypass" if problem.tokens else "cosmic")
    scores = staged(problem, candidates, rule)
    layers = len(problem.layers)
    chosen = select(scores, rule, layers).chosen or least_bad(scores, rule, layers)
    if chosen is None:
        raise UsageError("target and baseline have the same means everywhere, so there is nothing to start from")
    return candidates[scores.index(chosen)]


def at_place(problem: Problem, activations: Tensor, candidate: Candidate) -> Tensor:
    """Activations at a candidate's place, (prompts, d_model) float64.

    Taken from (prompts, positions, layers, d_model).
    """
    assert candidate.layer is not None
    p, layer = problem.positions.index(candidate.position), problem.layers.index(candidate.layer)
    return activations[:, p, layer].double()
