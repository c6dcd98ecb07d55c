"""Least-squares concept erasure: the eraser at each place, and what it reads."""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import PlainValidator
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.erasure import Eraser, fitted_eraser
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.edits.arrays import floats
from weight_edit.section import Section


def _optimal_or_share(value: object) -> object:
    if value == "optimal" or (isinstance(value, int | float) and 0 <= value <= 1):
        return value
    raise ValueError("give optimal, or a share from 0 to 1")


class LeaceOptions(Section):
    """Settings of the eraser.

    Attributes:
        shrinkage: share of the stream's covariance that is replaced by a multiple of the identity of the same trace: 0
            for none, 1 for all; "optimal" for what suits the number of prompts (arXiv 1308.2608). Whatever it is,
            nothing linear is left in the training prompts, and the same span is taken off; it decides by how much, and
            with few prompts keeps the eraser from reading their noise.
    """

    shrinkage: Annotated[float | Literal["optimal"], PlainValidator(_optimal_or_share)] = "optimal"


@finder("leace", everywhere=True)
def leace_directions(problem: Problem, options: LeaceOptions) -> list[Candidate]:
    """Least-squares concept erasure (LEACE, arXiv 2306.03819): the smallest change that leaves nothing linear to read.

    The eraser is in the tensors: `x -> x - sum_i left_i (right_i . (x - mean))`, with a pair for each target set. Rows
    are `left`, what it takes off: without their span no linear reader is left either, so that an ablation of them is
    the orthogonal counterpart of the eraser. With one target set that is the mean difference. (What the eraser reads,
    `right`, is no direction to ablate: the rest of the stream still tells the same.)

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """
    problem.check_enough("leace")
    samples = [problem.baseline, *problem.targets]
    streams = [problem.of(sample) for sample in samples]
    held = [problem.of(sample, "validation") for sample in samples] if all(s.validation for s in samples) else []
    x, z = torch.cat(streams), np.repeat(np.eye(len(samples))[:, 1:], [len(some) for some in streams], axis=0)
    means = torch.stack([some.double().mean(dim=0) for some in streams])
    differences = mean_difference(problem.target().double().mean(dim=0), means[0])
    # Where all means are alike up to rounding (a template's token before any block) there is nothing to erase.
    different = (mean_difference(means[1:], means[0]) != 0).any(dim=0).any(dim=-1) & means.isfinite().all(0).all(-1)
    candidates = []
    for p, layer in problem.places:
        difference = differences[p, layer]
        place = problem.positions[p], problem.layers[layer]
        eraser = None
        if different[p, layer]:
            eraser = fitted_eraser(floats(x[:, p, layer]), z, shrinkage=options.shrinkage)
        if eraser is None or not len(eraser.left):
            candidates.append(Candidate(*place, torch.zeros_like(difference)[None], difference))
            continue
        left, right, mean = (torch.from_numpy(part) for part in (eraser.left, eraser.right, eraser.mean))
        facts = {"shrinkage": eraser.shrinkage}
        if held:
            facts["held_out_difference"] = _remaining(eraser, [some[:, p, layer] for some in held])
        tensors = {"left": left, "right": right, "mean": mean}
        candidates.append(Candidate(*place, left, difference, tensors, facts))
    return candidates


def _remaining(eraser: Eraser, classes: list[Tensor]) -> float:
    """Share of the distance between the baseline's mean and the others that erasure leaves on held-out prompts."""
    means = [floats(some).mean(axis=0) for some in classes]
    before = sum(float(np.linalg.norm(mean - means[0])) for mean in means)
    after = sum(float(np.linalg.norm(eraser(mean) - eraser(means[0]))) for mean in means)
    return after / before if before else 0.0
