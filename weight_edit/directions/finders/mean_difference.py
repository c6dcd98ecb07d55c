"""Difference in means: the target prompts' mean activation minus the baseline prompts'."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.utils.settings import Section

# Where all prompts have the same activations (a template's token before any block), sums of equal numbers in
# another order still differ in their last digits; that is no direction.
_ROUNDING = 1e-6


class MeanDifferenceOptions(Section):
    """Settings of the difference in means.

    Attributes:
        clip: each activation's entries are clipped at this quantile of their magnitudes before means are taken, so that
            a few very large entries do not make the mean ("winsorised"); None for no clipping.
        off_baseline: take off the part that lies along the baseline's mean ("projected").
        each: with several target sets, one direction for each of them, instead of one for all.
    """

    clip: Annotated[float, Field(gt=0.5, le=1)] | None = None
    off_baseline: bool = False
    each: bool = False


@finder("mean-difference", paper="2406.11717", everywhere=True)
def mean_differences(problem: Problem, options: MeanDifferenceOptions) -> list[Candidate]:
    """Difference of the class means.

    `r[p, l] = mean_target(x[p, l]) - mean_baseline(x[p, l])` on the input of every block, in float64. Clipping and the
    projection off the baseline's mean are those of projected abliteration (jim-plus/llm-abliteration).

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """

    def mean(x: Tensor) -> Tensor:
        return (x if options.clip is None else clipped(x, options.clip)).double().mean(dim=0)

    baseline = mean(problem.of(problem.baseline))
    pooled = mean_difference(mean(problem.target()), baseline)
    several = [pooled]
    if options.each:
        several = [mean_difference(mean(problem.of(sample)), baseline) for sample in problem.targets]
    if options.off_baseline:
        pooled = off(pooled, baseline)
        several = [off(difference, baseline) for difference in several]
    rows = torch.stack(several)
    return [
        Candidate(
            position=problem.positions[p], layer=problem.layers[layer], rows=rows[:, p, layer], vector=pooled[p, layer]
        )
        for p, layer in problem.places
    ]


def mean_difference(target: Tensor, baseline: Tensor) -> Tensor:
    """`target - baseline` of means (..., d_model) float64; what is only rounding error is zero."""
    difference = target - baseline
    scale = torch.maximum(target.norm(dim=-1), baseline.norm(dim=-1))
    meaningful = difference.norm(dim=-1) > _ROUNDING * scale
    return torch.where(meaningful[..., None], difference, torch.zeros_like(difference))


def off(x: Tensor, along: Tensor) -> Tensor:
    """`x` (..., d_model) without its component along `along`, of the same shape."""
    unit = torch.nn.functional.normalize(along, dim=-1)
    return x - (x * unit).sum(dim=-1, keepdim=True) * unit


def clipped(x: Tensor, quantile: float) -> Tensor:
    """Vectors `x` (..., d_model), each with its entries clipped at a quantile of magnitudes."""
    rank = max(1, math.ceil(quantile * x.shape[-1]))
    limit = x.abs().kthvalue(rank, dim=-1, keepdim=True).values
    return torch.maximum(torch.minimum(x, limit), -limit)
