"""Several directions from a self-organising map of the target prompts."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.ablating import hooks_of
from weight_edit.directions.candidate import Candidate
from weight_edit.directions.cosmic import cosmic_scores
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.directions.scores import score_candidates
from weight_edit.directions.self_organising import nearest_neurons, self_organising_map
from weight_edit.directions.starting import at_place, best_mean_difference
from weight_edit.section import Section


class SomOptions(Section):
    """Settings of the map.

    Attributes:
        rows, columns: of the map.
        choose: at most so many of its directions are taken (2 to 7 in the paper).
        layer: whose input it is trained at; that of the best mean difference when None.
        prompts: how many training prompts of each class a choice is judged on.
        max_kl: directions that together move the baseline prompts' next token by more than this, in nats, are passed
            over; None lifts it.
    """

    rows: Annotated[int, Field(ge=1, le=16)] = 4
    columns: Annotated[int, Field(ge=1, le=16)] = 4
    choose: Annotated[int, Field(ge=1)] = 4
    layer: Annotated[int, Field(ge=0)] | None = None
    prompts: Annotated[int, Field(ge=4)] = 64
    max_kl: Annotated[float, Field(gt=0)] | None = 0.1


@finder("som")
def som(problem: Problem, options: SomOptions) -> list[Candidate]:
    """Neurons of a self-organising map of the target prompts, minus the baseline's mean (arXiv 2511.08379).

    The map is trained on the stream at the place of the best mean difference alone. Of its directions some are chosen
    by greedy forward selection: each time the one whose ablation together with those chosen lowers the refusal metric
    of training prompts most (without refusal tokens: raises the COSMIC score of validation prompts), while it still
    falls and the baseline is moved less than `max_kl`. The paper searches subsets by Bayesian optimisation; the greedy
    search needs no further package, a few dozen runs over the prompts, and gives the same subset each time.

    One candidate: the chosen directions, the most effective first. Facts: the neurons in the order of choice, the
    metric after each choice, and how many target prompts each neuron is nearest to.

    Raises:
        UsageError: a layer that the model has not, equal means everywhere, a prompt shorter than the positions reach
            back, or memory runs out.
    """
    start = best_mean_difference(problem, options.layer)
    targets = at_place(problem, problem.target(), start)
    neurons = self_organising_map(targets, options.rows, options.columns, problem.seed)
    directions = neurons - at_place(problem, problem.of(problem.baseline), start).mean(dim=0)
    chosen, reached = chosen_greedily(problem, directions, options)
    counts = torch.bincount(nearest_neurons(targets, neurons), minlength=len(neurons))
    facts = {"neurons": chosen, "reached": reached, "prompts": counts.tolist()}
    return [Candidate(start.position, start.layer, directions[chosen], directions[chosen[0]], facts=facts)]


def chosen_greedily(problem: Problem, directions: Tensor, options: SomOptions) -> tuple[list[int], list[float]]:
    """Which of directions (n, d_model) to ablate together, in the order of choice, and the metric after each."""
    chosen: list[int] = []
    reached: list[float] = []
    while len(chosen) < min(options.choose, len(directions)):
        rest = [index for index in range(len(directions)) if index not in chosen]
        judged = _judged(problem, [directions[[*chosen, index]] for index in rest], options)
        limit = float("inf") if options.max_kl is None else options.max_kl
        kept = [(metric, index) for (metric, kl), index in zip(judged, rest, strict=True) if kl <= limit]
        if not chosen and not kept:
            # Something has to be given: what moves the baseline least, for the rule of the search to judge.
            kept = [min((kl, metric, index) for (metric, kl), index in zip(judged, rest, strict=True))[1:]]
        if not kept or (reached and min(kept)[0] >= reached[-1]):
            break
        metric, index = min(kept)
        chosen.append(index)
        reached.append(metric)
    return chosen, reached


def _judged(problem: Problem, spans: list[Tensor], options: SomOptions) -> list[tuple[float, float]]:
    """What the ablation of each span does: the metric to lower, and the KL divergence on baseline prompts."""
    model, hooks = problem.model, hooks_of(problem.model)
    candidates = [Candidate(None, None, rows) for rows in spans]
    targets = _spread([ids for sample in problem.targets for ids in sample.train], options.prompts)
    baseline = _spread(problem.baseline.train, options.prompts)
    scores = score_candidates(
        model, candidates, targets, baseline, problem.tokens, hooks, batch_size=problem.batch_size
    )
    if problem.tokens:
        return [(float("inf") if s.bypass is None else s.bypass, s.kl) for s in scores]
    similar = cosmic_scores(problem, candidates, hooks)
    return [(-value, score.kl) for value, score in zip(similar, scores, strict=True)]


def _spread(prompts: list[list[int]], count: int) -> list[list[int]]:
    """So many of the prompts, evenly from all of them, so that each of several sets has its share."""
    if len(prompts) <= count:
        return prompts
    return [prompts[index * len(prompts) // count] for index in range(count)]
