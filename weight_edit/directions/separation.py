"""How well directions separate the classes on held-out prompts, and how long they are."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import nan, sqrt

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.evaluation.intervals import Z

# Rules of thumb, not measurements: a shorter or less separating difference rarely moves behaviour (2603.22061
# shows baselines matched to the target on topic that give one).
SHORT, BLURRED = 0.1, 0.9


@dataclass(frozen=True, kw_only=True)
class Separation:
    """The separation of the classes by the chosen candidate, and its length.

    Attributes:
        auc: probability that a target validation prompt lies further along the directions than a baseline one; of
            several directions, along the line in their span that separates the training prompts best.
        accuracy: share of validation prompts on the right side of the middle between the training classes on that
            line, each class weighing the same.
        norm: length of the difference.
        relative_norm: that length against the mean length of the residual stream at the same place.
        target_mean_norm, baseline_mean_norm: lengths of the class means of the training prompts there.
        target_projection, baseline_projection: means of the classes along the first unit direction, on training
            prompts.
    """

    auc: float
    accuracy: float
    norm: float
    relative_norm: float
    target_mean_norm: float
    baseline_mean_norm: float
    target_projection: float
    baseline_projection: float

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)

    def complain(self, warn: Callable[[str], None]) -> None:
        """Warn of a direction that is too short or separates the classes too little."""
        if self.relative_norm < SHORT:
            warn(
                f"the difference is only {self.relative_norm:.3f} of the residual stream's length, probably "
                "too small to act; a baseline of generic prompts, not matched to the target on topic, gives "
                "a longer one"
            )
        if self.auc < BLURRED:
            warn(f"target and baseline overlap along the direction (AUC {self.auc:.2f} on validation prompts)")


def separation(
    candidate: Candidate, target: Tensor, baseline: Tensor, held_target: Tensor, held_baseline: Tensor
) -> Separation:
    """The separation by a candidate, measured at its place.

    Args:
        target, baseline: the stream there on training prompts, (prompts, d_model).
        held_target, held_baseline: on validation prompts.
    """
    target, baseline, held_target, held_baseline = (x.double() for x in (target, baseline, held_target, held_baseline))
    rows = torch.from_numpy(orthonormal_rows(candidate.rows))
    line = rows.T @ fisher(target @ rows.T, baseline @ rows.T)
    first = rows[0]
    middle = ((target @ line).mean() + (baseline @ line).mean()) / 2
    right = (held_target @ line > middle).double().mean() + (held_baseline @ line < middle).double().mean()
    length = torch.cat([target, baseline]).norm(dim=-1).mean()
    means = target.mean(dim=0), baseline.mean(dim=0)
    return Separation(
        auc=auc(held_target @ line, held_baseline @ line),
        accuracy=float(right) / 2,
        norm=candidate.norm,
        relative_norm=float(candidate.norm / length),
        target_mean_norm=float(means[0].norm()),
        baseline_mean_norm=float(means[1].norm()),
        target_projection=float(means[0] @ first),
        baseline_projection=float(means[1] @ first),
    )


def line_of(known: DirectionRows) -> Tensor:
    """The unit line in the directions' span along which the class means differ, (d_model,).

    Of a single direction it is that direction; where the means are not known, the first one. It is float64.
    """
    rows = torch.from_numpy(known.rows).double()
    if len(rows) == 1 or not {"target_mean", "baseline_mean"} <= known.tensors.keys():
        return rows[0]
    shift = torch.from_numpy(known.tensors["target_mean"] - known.tensors["baseline_mean"]).double()
    within = rows @ shift
    # Means that do not differ within the span single out no line.
    return rows[0] if not bool(within.norm() > 0) else torch.nn.functional.normalize(rows.T @ within, dim=0)


def fisher(target: Tensor, baseline: Tensor) -> Tensor:
    """Fisher's linear discriminant: the unit direction (k,) between two classes (prompts, k).

    The covariance is shrunk a little, so that few prompts do no harm.
    """
    shift = target.mean(dim=0) - baseline.mean(dim=0)
    k = shift.shape[0]
    if k == 1:
        return torch.sign(shift) + (shift == 0)
    spread = sum((x - x.mean(dim=0)).T @ (x - x.mean(dim=0)) / len(x) for x in (target, baseline))
    assert isinstance(spread, Tensor)
    shrunk = spread + torch.eye(k, dtype=spread.dtype) * (0.01 * spread.diagonal().mean() + 1e-12)
    return torch.nn.functional.normalize(torch.linalg.solve(shrunk, shift), dim=0)


def auc(positive: Tensor, negative: Tensor) -> float:
    """The area under the ROC curve: the share of pairs where the positive value is larger.

    Ties count as halves.
    """
    gaps = positive[:, None] - negative[None, :]
    return float((gaps > 0).double().mean() + 0.5 * (gaps == 0).double().mean())


@dataclass(frozen=True, kw_only=True)
class Area:
    """An area under the ROC curve with a 95% interval.

    The interval is Newcombe's method 5 (Statistics in Medicine 25, 2006, 559-573): the areas t for which
    `|value - t| <= z sqrt(V(t))`, with Hanley and McNeil's variance of the two means' prompts,
    `V(t) = t (1 - t) (1 + (N - 1) ((1 - t) / (2 - t) + t / (1 + t))) / (m n)`, N = (m + n) / 2. It is sound near 0 and
    1, where the variance at the estimate itself is 0.

    Attributes:
        value: the area, in [0, 1].
        positives, negatives: m and n, the prompts of each class.
    """

    value: float
    positives: int
    negatives: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self._end(0.0)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self._end(1.0)

    def _end(self, outside: float) -> float:
        """The end between the value and an outermost area, by bisection."""
        inside = self.value
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(self.value - middle) <= Z * self._deviation(middle):
                inside = middle
            else:
                outside = middle
        return inside

    def _deviation(self, area: float) -> float:
        mean = (self.positives + self.negatives) / 2
        pairs = (1 - area) / (2 - area) + area / (1 + area)
        return sqrt(area * (1 - area) * (1 + (mean - 1) * pairs) / (self.positives * self.negatives))

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: value, low, high."""
        return {"value": self.value, "low": self.low, "high": self.high}


def mean_difference_area(positive: Tensor, negative: Tensor) -> Area:
    """How well the classes' mean difference separates prompts that it is not taken from.

    Every second prompt of each class gives the difference, along which the others are compared, and the other way
    round; the area is the mean of both. Each half's line is made of what the other half is compared on, so both areas
    move together: the interval is that of one half's prompts, since their mean varies no more than one of them.

    Args:
        positive, negative: the stream of each class, (prompts, d_model), four prompts at least.
    """
    if not (positive.isfinite().all() and negative.isfinite().all()):
        return Area(value=nan, positives=len(positive) // 2, negatives=len(negative) // 2)
    areas = []
    for half in (0, 1):
        line = positive[half::2].mean(dim=0) - negative[half::2].mean(dim=0)
        areas.append(auc(positive[1 - half :: 2] @ line, negative[1 - half :: 2] @ line))
    return Area(value=sum(areas) / 2, positives=len(positive) // 2, negatives=len(negative) // 2)
