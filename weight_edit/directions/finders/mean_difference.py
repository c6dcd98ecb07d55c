"""Difference in means: the target prompts' mean activation minus the baseline prompts'."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.loud import Deviations, Done
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
        loud: what is done at layers where one coordinate varies far more than the others: "scale" divides the
            difference by each coordinate's variance, "mask" leaves out the loud coordinates, "keep" does nothing, and
            "auto" scales where the loudest deviation over the median one is above a bound. "scale" and "mask" ask no
            bound of the layer.
    """

    clip: Annotated[float, Field(gt=0.5, le=1)] | None = None
    off_baseline: bool = False
    each: bool = False
    loud: Literal["auto", "scale", "mask", "keep"] = "auto"


@finder("mean-difference", paper="2406.11717", everywhere=True)
def mean_differences(problem: Problem, options: MeanDifferenceOptions) -> list[Candidate]:
    """Difference of the class means.

    `r[p, l] = mean_target(x[p, l]) - mean_baseline(x[p, l])` on the input of every block, in float64. Clipping and the
    projection off the baseline's mean are those of projected abliteration (jim-plus/llm-abliteration).

    One loud coordinate owns a difference and every projection on it (abhishek9909/loud-channel-abliteration). Where
    there is one, the direction is that of `r / (v + lambda)`, with `v` the coordinates' variances within the classes
    and `lambda` the layer's median of them, and what an addition adds is the part of `r` along it.

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """

    def taken(x: Tensor) -> Tensor:
        return x if options.clip is None else clipped(x, options.clip)

    def mean(x: Tensor) -> Tensor:
        return taken(x).double().mean(dim=0)

    baseline = mean(problem.of(problem.baseline))
    deviations = Deviations.of([taken(problem.target()), taken(problem.of(problem.baseline))])
    done = [_done(options.loud, bool(loud)) for loud in deviations.loud]
    pooled = mean_difference(mean(problem.target()), baseline)
    several = [pooled]
    if options.each:
        several = [mean_difference(mean(problem.of(sample)), baseline) for sample in problem.targets]
    pooled = mended(pooled, deviations, done)
    several = [mended(difference, deviations, done) for difference in several]
    if options.off_baseline:
        # Where loud coordinates are masked they are no part of the baseline's mean either, and stay out.
        quiet = baseline.clone()
        for layer, how in enumerate(done):
            if how == "masked":
                quiet[:, layer] = baseline[:, layer].masked_fill(deviations.masks[layer], 0.0)
        pooled = off(pooled, quiet)
        several = [off(difference, quiet) for difference in several]
    rows = torch.stack(several)
    return [
        Candidate(
            position=problem.positions[p],
            layer=problem.layers[layer],
            rows=rows[:, p, layer],
            vector=pooled[p, layer],
            facts={"loud": deviations.at(layer, done[layer])}
            if deviations.loud[layer] or done[layer] != "nothing"
            else {},
        )
        for p, layer in problem.places
    ]


def mended(difference: Tensor, deviations: Deviations, done: Sequence[Done]) -> Tensor:
    """The difference (positions, layers, d_model) float64 without the weight of loud coordinates.

    Args:
        done: what is done at each layer; a layer where it is "nothing" stays as it is.
    """
    result = difference.clone()
    for layer, how in enumerate(done):
        there = difference[:, layer]
        if how == "masked":
            result[:, layer] = there.masked_fill(deviations.masks[layer], 0.0)
        elif how == "scaled":
            unit = torch.nn.functional.normalize(there * deviations.weights[layer], dim=-1)
            result[:, layer] = unit * (there * unit).sum(dim=-1, keepdim=True)
    return result


def _done(asked: str, loud: bool) -> Done:
    if asked == "auto":
        return "scaled" if loud else "nothing"
    known: dict[str, Done] = {"scale": "scaled", "mask": "masked", "keep": "nothing"}
    return known[asked]


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
