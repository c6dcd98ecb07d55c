"""How well directions separate the classes on held-out prompts, and how long they are."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from weight_edit.directions.candidate import Candidate
from weight_edit.edits.projection import orthonormal_rows

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
