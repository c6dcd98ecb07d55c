"""Iterative nullspace projection: the directions that classifiers find one after the other."""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PlainValidator
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.nullspace import Marks, Nullspace, Stopping, nullspace
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.edits.arrays import Floats, floats
from weight_edit.progress import bar
from weight_edit.section import Section

# Of the training prompts, for the classifiers' accuracy, as in the paper.
_HELD = 0.2


def _all_or_count(value: object) -> object:
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError("give all, or how many, at least 1")


class InlpOptions(Section):
    """Settings of iterative nullspace projection. The defaults are the paper's.

    Attributes:
        rounds: at most so many classifiers, at each position and layer.
        stop_below: the round in which held-out accuracy falls below this is the last; its direction is kept.
        stop_equal: stop after so many equal accuracies in a row; None for never. Where prompts are few or easily told
            apart, this is what ends the search first.
        keep: "all" directions, or the first so many.
        keep_accuracy: of those, only the ones whose classifier was at least so accurate; None for all.
        c: sklearn's inverse penalty.
    """

    rounds: Annotated[int, Field(ge=1)] = 100
    stop_below: Annotated[float, Field(ge=0, le=1)] = 0.55
    stop_equal: Annotated[int, Field(ge=2)] | None = 3
    keep: Annotated[int | Literal["all"], PlainValidator(_all_or_count)] = "all"
    keep_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    c: Annotated[float, Field(gt=0)] = 0.1


@finder("inlp", select="accuracy")
def inlp_directions(problem: Problem, options: InlpOptions) -> list[Candidate]:
    """Iterative nullspace projection (arXiv 2606.13720): logistic regressions, each on what the last one left.

    A fifth of the training prompts of each class, drawn by the seed, measures accuracy. Rows are the classifiers' unit
    weights in the order in which they were found; what an addition adds is the mean difference. Layers that may not be
    chosen are not searched, and have no rows.

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """
    problem.check_enough("inlp")
    target, baseline = problem.target(), problem.of(problem.baseline)
    differences = mean_difference(target.double().mean(dim=0), baseline.double().mean(dim=0))
    marks = held_out((len(target), len(baseline)), problem.seed)
    stopping = Stopping(options.rounds, options.stop_below, options.stop_equal)
    candidates = []
    with bar("places", len(problem.places)) as progress:
        for p, layer in problem.places:
            difference = differences[p, layer]
            rows, facts = torch.zeros_like(difference)[None], dict[str, object]()
            # Where the classes have one mean (a template's token before any block) a classifier would fit rounding.
            if layer < problem.allowed and difference.any():
                found = _searched(target[:, p, layer], baseline[:, p, layer], marks, options.c, stopping)
                kept = found.first(None if options.keep == "all" else options.keep, options.keep_accuracy)
                rows = torch.from_numpy(kept) if len(kept) else rows
                facts = _facts(found, len(kept))
            candidates.append(Candidate(problem.positions[p], problem.layers[layer], rows, difference, facts=facts))
            progress.advance()
    return candidates


def held_out(sizes: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Which prompts of each class measure accuracy: bool masks with a fifth of each marked, drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for size in sizes:
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.randperm(size, generator=generator)[: max(1, round(_HELD * size))]] = True
        masks.append(mask)
    return masks[0], masks[1]


def _searched(
    target: Tensor, baseline: Tensor, marks: tuple[Tensor, Tensor], c: float, stopping: Stopping
) -> Nullspace:
    train = floats(target[~marks[0]]), floats(baseline[~marks[1]])
    held = floats(target[marks[0]]), floats(baseline[marks[1]])
    return nullspace(*_labelled(*train), *_labelled(*held), c=c, stopping=stopping)


def _labelled(target: Floats, baseline: Floats) -> tuple[Floats, Marks]:
    return np.concatenate([target, baseline]), np.arange(len(target) + len(baseline)) < len(target)


def _facts(found: Nullspace, kept: int) -> dict[str, object]:
    facts: dict[str, object] = {"accuracies": list(found.accuracies), "stopped": found.stopped, "kept": kept}
    return facts | ({"accuracy": found.accuracies[0]} if found.accuracies else {})
