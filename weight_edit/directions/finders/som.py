"""Directions from a self-organising map of the target prompts: the map, the neurons' choice."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders._best_mean_difference import at_place, best_mean_difference
from weight_edit.directions.measuring import measured
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.utils.settings import Section

ROUNDS = 100
"""Passes over the data during which the neighbourhood shrinks."""


def self_organising_map(x: Tensor, rows: int, columns: int, seed: int) -> Tensor:
    """Neurons of a hexagonal map trained on data.

    The batch form: in each round every sample goes to its nearest neuron, and every neuron to the mean of the samples,
    weighed by `exp(-d^2 / (2 sigma^2))` of the grid distance d between the two neurons; sigma falls from half of the
    grid's longer side to .5 geometrically. It starts from samples drawn by the seed. Unlike the form that takes one
    sample after the other, it has no learning rate and does not depend on the samples' order.

    Args:
        x: (n, d_model), any float dtype.

    Returns:
        (rows * columns, d_model) float64, row by row of the grid.
    """
    x = x.double()
    count = rows * columns
    places = hexagonal(rows, columns)
    apart = torch.cdist(places, places).square()
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    neurons = x[drawn.repeat(math.ceil(count / len(x)))[:count]].clone()
    widest = max(max(rows, columns) / 2, 0.5)
    for step in range(ROUNDS):
        sigma = widest * (0.5 / widest) ** (step / (ROUNDS - 1))
        nearest = nearest_neurons(x, neurons)
        weights = torch.exp(-apart[:, nearest] / (2 * sigma**2))
        totals = weights.sum(dim=1, keepdim=True)
        # A neuron with no sample anywhere near stays where it is.
        neurons = torch.where(totals > 1e-12, weights @ x / totals.clamp(min=1e-12), neurons)
    return neurons


def nearest_neurons(x: Tensor, neurons: Tensor) -> Tensor:
    """The index of each sample's nearest neuron, (n,) int64; ties go to the first."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(x.double(), neurons.double(), compute_mode=exact).argmin(dim=1)


def hexagonal(rows: int, columns: int) -> Tensor:
    """The places of a hexagonal grid, (rows * columns, 2) float64; neighbours are 1 apart.

    Odd rows are shifted by half.
    """
    return torch.tensor(
        [[column + row % 2 / 2, row * math.sqrt(3) / 2] for row in range(rows) for column in range(columns)],
        dtype=torch.float64,
    )


class SomOptions(Section):
    """Settings of the map.

    Attributes:
        rows, columns: of the map.
        choose: at most so many of its directions are taken (2 to 7 in the paper).
        layer: whose input it is trained at; that of the best mean difference when None.
        max_kl: directions that together move the baseline prompts' next token by more than this, in nats, are passed
            over; None lifts it.
    """

    rows: Annotated[int, Field(ge=1, le=16)] = 4
    columns: Annotated[int, Field(ge=1, le=16)] = 4
    choose: Annotated[int, Field(ge=1)] = 4
    layer: Annotated[int, Field(ge=0)] | None = None
    max_kl: Annotated[float, Field(gt=0)] | None = 0.1


@finder("som", paper="2511.08379")
def som(problem: Problem, options: SomOptions) -> list[Candidate]:
    """Neurons of a self-organising map of the target prompts, minus the baseline's mean.

    The map is trained on the stream at the place of the best mean difference alone. Of its directions some are chosen
    by greedy forward selection: each time the one whose ablation together with those chosen lowers the refusal metric
    of validation prompts most (without refusal tokens: raises the COSMIC score), while it still falls and the baseline
    is moved less than `max_kl`. The paper searches subsets by Bayesian optimisation; the greedy
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
    return [
        Candidate(
            position=start.position,
            layer=start.layer,
            rows=directions[chosen],
            vector=directions[chosen[0]],
            facts=facts,
        )
    ]


def chosen_greedily(problem: Problem, directions: Tensor, options: SomOptions) -> tuple[list[int], list[float]]:
    """Indices of the directions to ablate together, in order, and the metric after each.

    The candidates are `directions`, (n, d_model).
    """
    chosen: list[int] = []
    reached: list[float] = []
    while len(chosen) < min(options.choose, len(directions)):
        rest = [index for index in range(len(directions)) if index not in chosen]
        judged = _judged(problem, [directions[[*chosen, index]] for index in rest])
        limit = math.inf if options.max_kl is None else options.max_kl
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


def _judged(problem: Problem, spans: list[Tensor]) -> list[tuple[float, float]]:
    """For each span, the metric to lower and the KL divergence on baseline when it is ablated."""
    spanned = [Candidate(position=None, layer=None, rows=rows) for rows in spans]
    scores = measured(problem, spanned, similarity=not problem.tokens)
    metrics = [score.bypass if problem.tokens else None if score.cosmic is None else -score.cosmic for score in scores]
    # Without a direction there is nothing to measure, and nothing to take.
    return [
        (math.inf if metric is None else metric, math.nan if score.kl is None else score.kl)
        for metric, score in zip(metrics, scores, strict=True)
    ]
