"""Iterative nullspace projection (INLP): classifiers, each of which sees only what those before it have left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weight_edit.edits.arrays import Floats

Marks: TypeAlias = NDArray[np.bool_]

# What is left of the data, against its largest singular value, when it is only rounding error.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Stopping:
    """When no more directions are sought.

    Attributes:
        rounds: at most so many classifiers.
        below: stop after the first one whose held-out accuracy is below this; its direction is kept.
        equal: stop after so many equal accuracies in a row; None for never.
    """

    rounds: int = 100
    below: float = 0.55
    equal: int | None = 3

    def reason(self, accuracies: Sequence[float]) -> str:
        """Why the last classifier was the last one; empty where another one follows."""
        if accuracies[-1] < self.below:
            return f"accuracy below {self.below:g}"
        if self.equal is not None and len(accuracies) >= self.equal and len(set(accuracies[-self.equal :])) == 1:
            return f"{self.equal} equal accuracies"
        return "all rounds done" if len(accuracies) >= self.rounds else ""


@dataclass(frozen=True, eq=False)
class Nullspace:
    """Directions that classifiers found, one after the other.

    Attributes:
        directions: (k, d) float64, orthonormal rows in the order in which they were found, each towards the class
            that is true. The projection is `I - directions^T directions`.
        accuracies: k figures: of each one's classifier, on held-out data. Each class weighs the same.
        stopped: why there are no more.
    """

    directions: Floats
    accuracies: tuple[float, ...]
    stopped: str

    def first(self, count: int | None = None, accuracy: float | None = None) -> Floats:
        """Of the first `count` directions (all when None), those at least so accurate (all when None), (n, d)."""
        rows = self.directions[:count]
        marks = [accuracy is None or value >= accuracy for value in self.accuracies[:count]]
        return rows[np.array(marks, dtype=bool)]


def nullspace(
    x: Floats, labels: Marks, held_x: Floats, held_labels: Marks, *, c: float = 0.1, stopping: Stopping | None = None
) -> Nullspace:
    """Iterative nullspace projection, with the classifier and stopping rules of arXiv 2606.13720.

    In each round a logistic regression without intercept is fitted to `P x`, its unit weights `w` are a direction,
    and `P` loses `w`. Fitted weights are combinations of the data's rows (the penalty shrinks all else to zero), so
    that everything is computed in the span of the rows, which has at most as many dimensions as there are prompts: the
    result is the same as in full width.

    Args:
        x, held_x: (n, d), (m, d), to train on and to measure accuracy on.
        labels, held_labels: (n,), (m,) bool.
        c: sklearn's inverse penalty, see `fit`.
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
        w = fit(seen, labels, c)
        for _ in range(2):  # Orthogonal to rounding: a second time removes what the first one's rounding leaves.
            w = w - sum(((row @ w) * row for row in rows), np.zeros_like(w))
        length = np.linalg.norm(w)
        if length == 0:
            stopped = "nothing left"
            break
        w = w / length
        accuracies.append(balanced_accuracy(held @ w, held_labels))
        rows.append(w)
        seen, held = seen - np.outer(seen @ w, w), held - np.outer(held @ w, w)
        stopped = stopping.reason(accuracies)
    found = np.stack(rows) @ basis if rows else np.zeros((0, x.shape[1]))
    return Nullspace(found, tuple(accuracies), stopped)


def fit(x: Floats, labels: Marks, c: float) -> Floats:
    """Weights (d,) of a logistic regression without intercept on `x` (n, d) and bool `labels` (n,).

    The paper minimises `mean loss + lambda |w|^2` with `lambda = 1 / (2 * 0.1 * N)`. Times `0.1 N` that is
    `0.1 * sum of losses + |w|^2 / 2`, sklearn's objective with `C = 0.1`, whatever N is. It has one minimum, so that
    Newton's method, which comes closer to it in less time, replaces L-BFGS. Each class weighs the same.
    """
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=c, fit_intercept=False, solver="newton-cholesky", class_weight="balanced", tol=1e-8, max_iter=200
    )
    weights: Floats = model.fit(x, labels).coef_[0]
    return weights


def balanced_accuracy(values: Floats, labels: Marks) -> float:
    """Share of positive `values` among the true and of the others among the false, (n,) each, averaged."""
    return float((values[labels] > 0).mean() + (values[~labels] <= 0).mean()) / 2
