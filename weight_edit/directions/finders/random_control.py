"""A random direction: the control that every other finder has to beat."""

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.utils.settings import Section


class RandomOptions(Section):
    """No settings: the seed is the search's."""


@finder("random", everywhere=True)
def random_directions(problem: Problem, options: RandomOptions) -> list[Candidate]:
    """Random direction of the mean difference's length, a control.

    One direction for all places, drawn from the seed, so that figures at different layers can be compared.
    """
    lengths = mean_difference(
        problem.target().double().mean(dim=0), problem.of(problem.baseline).double().mean(dim=0)
    ).norm(dim=-1)
    unit = random_rows(1, problem.width, problem.seed)
    return [
        Candidate(
            position=problem.positions[p],
            layer=problem.layers[layer],
            rows=unit * lengths[p, layer],
            vector=unit[0] * lengths[p, layer],
        )
        for p, layer in problem.places
    ]


def random_rows(count: int, width: int, seed: int) -> Tensor:
    """Orthonormal rows of a random subspace, (count, width) float64."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(width, count, generator=generator, dtype=torch.float64))
    return q.T.contiguous()
