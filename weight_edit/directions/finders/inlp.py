"""Iterative nullspace projection (INLP): the projection, its classifier and stopping rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PlainValidator
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.finders.mean_difference import mean_difference
from weight_edit.directions.problem import Problem
from weight_edit.directions.registry import finder
from weight_edit.utils.arrays import Floats, as_float64
from weight_edit.utils.progress import bar
from weight_edit.utils.settings import Section

Marks: TypeAlias = NDArray[np.bool_]

# What is left of the data, against its largest singular value, when it is only rounding error.
_ROUNDING = 1e-9

# Of the training prompts, for the classifiers' accuracy, as in the paper.
_HELD = 0.2


@dataclass(frozen=True)
class Stopping:
    """The stopping rules of iterative nullspace projection.

    Attributes:
        rounds: at most so many classifiers.
        below: stop after the first one whose held-out accuracy is below this; its direction is kept.
        equal: stop after so many equal accuracies in a row; None for never.
    """

    rounds: int = 100
    below: float = 0.55
    equal: int | None = 3

    def reason(self, accuracies: Sequence[float]) -> str:
        """Why the search stops after these accuracies; empty if it goes on."""
        if accuracies[-1] < self.below:
            return f"accuracy below {self.below:g}"
        if self.equal is not None and len(accuracies) >= self.equal and len(set(accuracies[-self.equal :])) == 1:
            return f"{self.equal} equal accuracies"
        return "all rounds done" if len(accuracies) >= self.rounds else ""


@dataclass(frozen=True, eq=False)
class Nullspace:
    """The directions of successive classifiers, with their accuracies.

    Attributes:
        directions: (k, d) float64, orthonormal rows in the order in which they were found, each towards the class
            that is true. The projection is `I - directions^T directions`.
        accuracies: k figures: of each one's classifier, on held-out data.
        stopped: why there are no more.
    """

    directions: Floats
    accuracies: tuple[float, ...]
    stopped: str

    def first(self, count: int | None = None, accuracy: float | None = None) -> Floats:
        """The directions among the first `count` that reach `accuracy`, (n, d); None lifts a limit."""
        rows = self.directions[:count]
        marks = [accuracy is None or value >= accuracy for value in self.accuracies[:count]]
        return rows[np.array(marks, dtype=bool)]


def nullspace(
    x: Floats,
    labels: Marks,
    held_x: Floats,
    held_labels: Marks,
    *,
    c: float = 0.1,
    balanced: bool = True,
    stopping: Stopping | None = None,
) -> Nullspace:
    """Iterative nullspace projection, with the classifier and stopping rules of the paper.

    In each round a logistic regression without intercept is fitted to `P x`, its unit weights `w` are a direction,
    and `P` loses `w`. Fitted weights are combinations of the data's rows (the penalty shrinks all else to zero), so
    that everything is computed in the span of the rows, which has at most as many dimensions as there are prompts: the
    result is the same as in full width.

    Args:
        x, held_x: (n, d), (m, d), to train on and to measure accuracy on.
        labels, held_labels: (n,), (m,) bool.
        c: sklearn's inverse penalty, see `fit`.
        balanced: whether each class weighs the same, in fits and accuracies; otherwise each prompt does.
        stopping: the paper's rules when None.
    """
    stopping = Stopping() if stopping is None else stopping
    _, scales, basis = np.linalg.svd(x, full_matrices=False)
    basis = basis[scales > _ROUNDING * max(scales.max(), np.finfo(float).tiny)]
    if not len(basis):
        return Nullspace(np.zeros((0, x.shape[1])), (), "nothing left")
    seen, held = x @ basis.T, held_x @ basis.T
    rows: list[Floats] = []
    accuracies: list[float] = []
    stopped = ""
    while not stopped:
        if np.linalg.norm(seen) <= _ROUNDING * scales[0] * np.sqrt(len(x)):
            stopped = "nothing left"
            break
        w = fit(seen, labels, c, balanced=balanced)
        for _ in range(2):  # Orthogonal to rounding: a second time removes what the first one's rounding leaves.
            w = w - sum(((row @ w) * row for row in rows), np.zeros_like(w))
        length = np.linalg.norm(w)
        if length == 0:
            stopped = "nothing left"
            break
        w = w / length
        accuracies.append((balanced_accuracy if balanced else plain_accuracy)(held @ w, held_labels))
        rows.append(w)
        seen, held = seen - np.outer(seen @ w, w), held - np.outer(held @ w, w)
        stopped = stopping.reason(accuracies)
    found = np.stack(rows) @ basis if rows else np.zeros((0, x.shape[1]))
    return Nullspace(found, tuple(accuracies), stopped)


def fit(x: Floats, labels: Marks, c: float, *, balanced: bool = True) -> Floats:
    """The weights (d,) of a logistic regression of `labels` (n,) on `x` (n, d), no intercept.

    The paper minimises `mean loss + lambda |w|^2` with `lambda = 1 / (2 * 0.1 * N)`. Times `0.1 N` that is
    `0.1 * sum of losses + |w|^2 / 2`, sklearn's objective with `C = 0.1`, whatever N is. It has one minimum, so that
    Newton's method, which comes closer to it in less time, replaces L-BFGS. Each class weighs the same if `balanced`;
    in the paper each prompt does.
    """
    from sklearn.linear_model import LogisticRegression

    weight = "balanced" if balanced else None
    model = LogisticRegression(
        C=c, fit_intercept=False, solver="newton-cholesky", class_weight=weight, tol=1e-8, max_iter=200
    )
    weights: Floats = model.fit(x, labels).coef_[0]
    return weights


def balanced_accuracy(values: Floats, labels: Marks) -> float:
    """The balanced accuracy of the sign of `values` (n,) as a classifier of bool `labels` (n,)."""
    return float((values[labels] > 0).mean() + (values[~labels] <= 0).mean()) / 2


def plain_accuracy(values: Floats, labels: Marks) -> float:
    """The accuracy of the sign of `values` (n,) as a classifier of bool `labels` (n,)."""
    return float(((values > 0) == labels).mean())


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
        weights: in the classifiers and their accuracy: with "balanced" each class weighs the same, with "none" each
            prompt does, as in the paper; with "cut" too, of as many prompts of each class, as in its code.
    """

    rounds: Annotated[int, Field(ge=1)] = 100
    stop_below: Annotated[float, Field(ge=0, le=1)] = 0.55
    stop_equal: Annotated[int, Field(ge=2)] | None = 3
    keep: Annotated[int | Literal["all"], PlainValidator(_all_or_count)] = "all"
    keep_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    c: Annotated[float, Field(gt=0)] = 0.1
    weights: Literal["balanced", "none", "cut"] = "balanced"


@finder("inlp", paper="2606.13720", select="accuracy")
def inlp_directions(problem: Problem, options: InlpOptions) -> list[Candidate]:
    """Iterative nullspace projection: logistic regressions, each on what the last one left.

    A fifth of the training prompts of each class, drawn by the seed, measures accuracy. Rows are the classifiers' unit
    weights in the order in which they were found; what an addition adds is the mean difference. Layers that may not be
    chosen are not searched, and have no rows.

    The published classifiers weigh every prompt the same, and the code (eliroc98/refusal_direction) first cuts the
    larger class to the size of the smaller one: `weights` "cut". By default the classes weigh the same instead and no
    prompt is lost, since filtering leaves classes of different sizes, to which an unweighted classifier leans.

    Raises:
        UsageError: a prompt is shorter than the positions reach back, or memory runs out.
    """
    problem.check_enough("inlp")
    target, baseline = problem.target(), problem.of(problem.baseline)
    if options.weights == "cut":
        # As in the published code: the first ones of the larger class stay.
        count = min(len(target), len(baseline))
        target, baseline = target[:count], baseline[:count]
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
                found = _searched(target[:, p, layer], baseline[:, p, layer], marks, options, stopping)
                kept = found.first(None if options.keep == "all" else options.keep, options.keep_accuracy)
                rows = torch.from_numpy(kept) if len(kept) else rows
                facts = _facts(found, len(kept))
            candidates.append(
                Candidate(
                    position=problem.positions[p],
                    layer=problem.layers[layer],
                    rows=rows,
                    vector=difference,
                    facts=facts,
                )
            )
            progress.advance()
    return candidates


def held_out(sizes: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Random masks of the prompts held out for accuracy: a fifth of each class."""
    generator = torch.Generator().manual_seed(seed)
    masks = []
    for size in sizes:
        mask = torch.zeros(size, dtype=torch.bool)
        mask[torch.randperm(size, generator=generator)[: max(1, round(_HELD * size))]] = True
        masks.append(mask)
    return masks[0], masks[1]


def _searched(
    target: Tensor, baseline: Tensor, marks: tuple[Tensor, Tensor], options: InlpOptions, stopping: Stopping
) -> Nullspace:
    train = as_float64(target[~marks[0]]), as_float64(baseline[~marks[1]])
    held = as_float64(target[marks[0]]), as_float64(baseline[marks[1]])
    balanced = options.weights == "balanced"
    return nullspace(*_labelled(*train), *_labelled(*held), c=options.c, balanced=balanced, stopping=stopping)


def _labelled(target: Floats, baseline: Floats) -> tuple[Floats, Marks]:
    return np.concatenate([target, baseline]), np.arange(len(target) + len(baseline)) < len(target)


def _facts(found: Nullspace, kept: int) -> dict[str, object]:
    facts: dict[str, object] = {"accuracies": list(found.accuracies), "stopped": found.stopped, "kept": kept}
    return facts | ({"accuracy": found.accuracies[0]} if found.accuracies else {})
