"""Difference in means: what target prompts have in the stream on average and baseline prompts have not."""

from collections.abc import Sequence

import torch
from torch import Tensor

from weight_edit.activations import Point, ResidualStatistics, residual_statistics
from weight_edit.directions.registry import finder
from weight_edit.runtime import Model

# Where all prompts have the same activations (a template's token before any block), sums of equal numbers in
# another order still differ in their last digits; that is no direction.
_ROUNDING = 1e-6


def mean_difference(target: ResidualStatistics, baseline: ResidualStatistics) -> Tensor:
    """`mean_target - mean_baseline` for each position and point, (P, L, d_model) float64; rounding error is
    zero.

    Raises:
        ValueError: one of the two has seen nothing.
    """
    if target.mean is None or baseline.mean is None:
        raise ValueError("a mean over no prompts does not exist")
    difference = target.mean - baseline.mean
    scale = torch.maximum(target.mean.norm(dim=-1), baseline.mean.norm(dim=-1))
    meaningful = difference.norm(dim=-1) > _ROUNDING * scale
    return torch.where(meaningful[..., None], difference, torch.zeros_like(difference))


@finder("mean-difference")
def candidates(
    model: Model,
    target: Sequence[Sequence[int]],
    baseline: Sequence[Sequence[int]],
    positions: Sequence[int],
    *,
    batch_size: int,
) -> Tensor:
    """The candidates of arXiv 2406.11717: differences of means at the input of every block.

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """
    points = [Point("resid_pre", layer) for layer in range(model.anatomy.n_layers)]
    means = [
        residual_statistics(model, prompts, points, positions, batch_size=batch_size, description=f"{name} activations")
        for name, prompts in (("target", target), ("baseline", baseline))
    ]
    return mean_difference(*means).float()
