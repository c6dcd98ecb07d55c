"""How well a direction tells the classes apart, and how long it is against what it acts on."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from weight_edit.activations import Point, residuals
from weight_edit.directions.samples import Sample
from weight_edit.runtime import Model

# Rules of thumb, not measurements: a shorter or less separating difference rarely moves behaviour (2603.22061
# shows baselines matched to the target on topic that give one).
SHORT, BLURRED = 0.1, 0.9


@dataclass(frozen=True)
class Separation:
    """Where the chosen candidate stands in the stream.

    Attributes:
        auc: probability that a target validation prompt lies further along the direction than a baseline one.
        norm: length of the difference.
        relative_norm: that length against the mean length of the residual stream at the same place.
        target_mean_norm, baseline_mean_norm: lengths of the class means of the training prompts there.
        target_projection, baseline_projection: means of the classes along the unit direction, on training
            prompts.
    """

    auc: float
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
        """Warn when the direction is too short or separates too little to act."""
        if self.relative_norm < SHORT:
            warn(
                f"the difference is only {self.relative_norm:.3f} of the residual stream's length, probably "
                "too small to act; a baseline of generic prompts, not matched to the target on topic, gives "
                "a longer one"
            )
        if self.auc < BLURRED:
            warn(f"target and baseline overlap along the direction (AUC {self.auc:.2f} on validation prompts)")


def separation(
    model: Model,
    difference: Tensor,
    layer: int,
    position: int,
    target: Sample,
    baseline: Sample,
    *,
    batch_size: int = 32,
) -> Separation:
    """Measure a candidate (d_model,) at the input of its layer.

    Raises:
        UsageError: memory runs out with a single prompt.
    """

    def at(prompts: list[list[int]]) -> Tensor:
        points = [Point("resid_pre", layer)]
        found = residuals(model, prompts, points, [position], batch_size=batch_size, description=None)
        return found[:, 0, 0].double()

    norm = difference.double().norm()
    unit = difference.double() / norm
    target_train, baseline_train = at(target.train), at(baseline.train)
    length = torch.cat([target_train, baseline_train]).norm(dim=-1).mean()
    means = target_train.mean(dim=0), baseline_train.mean(dim=0)
    return Separation(
        auc=auc(at(target.validation) @ unit, at(baseline.validation) @ unit),
        norm=float(norm),
        relative_norm=float(norm / length),
        target_mean_norm=float(means[0].norm()),
        baseline_mean_norm=float(means[1].norm()),
        target_projection=float(means[0] @ unit),
        baseline_projection=float(means[1] @ unit),
    )


def auc(positive: Tensor, negative: Tensor) -> float:
    """Area under the ROC curve: the share of pairs in which the positive value is larger, ties as halves."""
    gaps = positive[:, None] - negative[None, :]
    return float((gaps > 0).double().mean() + 0.5 * (gaps == 0).double().mean())
