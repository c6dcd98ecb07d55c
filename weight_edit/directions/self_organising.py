"""A self-organising map: points of a grid spread over data, neighbours on the grid near one another in it."""

import math

import torch
from torch import Tensor

ROUNDS = 100
"""The neighbourhood shrinks over so many passes over the data."""


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
    """Of each sample (n, d_model) the neuron nearest to it, (n,) int64; the first of equal ones."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(x.double(), neurons.double(), compute_mode=exact).argmin(dim=1)


def hexagonal(rows: int, columns: int) -> Tensor:
    """Places of a grid whose odd rows are shifted by half, (rows * columns, 2) float64; neighbours are 1 apart."""
    return torch.tensor(
        [[column + row % 2 / 2, row * math.sqrt(3) / 2] for row in range(rows) for column in range(columns)],
        dtype=torch.float64,
    )
