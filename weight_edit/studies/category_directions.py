"""Directions of request categories: their cosines and their stability under resampling."""

from collections.abc import Mapping

import torch
from torch import Tensor


def unit_difference(target: Tensor, baseline: Tensor) -> Tensor:
    """The normalised difference of two classes' mean activations, (d_model,) float64."""
    return torch.nn.functional.normalize(target.double().mean(dim=0) - baseline.double().mean(dim=0), dim=0)


def cosines(directions: Mapping[str, Tensor]) -> Tensor:
    """The cosines between unit directions, (n, n) float64, in their order."""
    rows = torch.stack([direction.double() for direction in directions.values()])
    return rows @ rows.T


def between(matrix: Tensor) -> dict[str, float]:
    """Mean, minimum and maximum of the off-diagonal cosines; empty for a single direction."""
    n = len(matrix)
    if n < 2:
        return {}
    off = matrix[~torch.eye(n, dtype=torch.bool)]
    return {"mean": float(off.mean()), "min": float(off.min()), "max": float(off.max())}


def stability(target: Tensor, baseline: Tensor, count: int, seed: int) -> dict[str, float]:
    """The cosines between directions computed from resampled prompts.

    Args:
        target, baseline: (prompts, d_model).
        count: how many directions are made.

    Returns:
        mean, min: of the cosines between directions from prompts drawn with replacement (as many as there are), which
            share prompts and so are alike by that; half_mean, half_min: between the directions of two disjoint halves
            of the prompts, drawn `count` times.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        unit_difference(*(x[torch.randint(len(x), (len(x),), generator=generator)] for x in (target, baseline)))
        for _ in range(count)
    ]
    rows = torch.stack(drawn)
    halves = []
    for _ in range(count):
        orders = [torch.randperm(len(x), generator=generator) for x in (target, baseline)]
        pair = [
            unit_difference(*(x[order[side::2]] for x, order in zip((target, baseline), orders, strict=True)))
            for side in (0, 1)
        ]
        halves.append(float(pair[0] @ pair[1]))
    again = between(rows @ rows.T)
    return {
        "mean": again["mean"],
        "min": again["min"],
        "half_mean": sum(halves) / len(halves),
        "half_min": min(halves),
    }
