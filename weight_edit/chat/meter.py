"""How far the residual stream goes along a direction while a model speaks, and what lengths to compare it with."""

from dataclasses import dataclass

import torch
from torch import Tensor

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.runtime.hooks import Hook
from weight_edit.runtime.loading import Model
from weight_edit.runtime.points import Point, hook_at


@dataclass(frozen=True)
class Scale:
    """The components of the two classes of prompts that the directions were found with.

    Attributes:
        baseline: mean component of the baseline, ordinary requests mostly.
        target: mean component of the target, refused requests mostly.
    """

    baseline: float
    target: float

    def share(self, component: float) -> float:
        """A component's place: 0 at the baseline's mean, 1 at the target's; below and above where it is beyond."""
        return (component - self.baseline) / (self.target - self.baseline)


class Meter:
    """Measures the component of the stream along directions, at the input of one block.

    With one direction it is the signed component; with several it is the length of the projection on their span. It is
    read behind whatever the edit does at that place.

    Attributes:
        layer: the block.
        found: whether the directions were found there.

    Args:
        model: the model whose width and blocks count.
        directions: rows (k, d_model); their metadata may name the layer.
        measure_at: the block; None is the one where the directions were found, else the middle one.

    Raises:
        UsageError: directions of another width, or the model has no such block.
    """

    def __init__(self, model: Model, directions: DirectionRows, *, measure_at: int | None = None) -> None:
        directions.check_width(model.anatomy.d_model)
        found: int | None = directions.metadata.get("layer")
        middle = model.anatomy.n_layers // 2
        self.layer: int = next(each for each in (measure_at, found, middle) if each is not None)
        if not 0 <= self.layer < model.anatomy.n_layers:
            raise UsageError(
                f"layer {self.layer} does not exist: the model's are 0 to {model.anatomy.n_layers - 1}",
                option="measure_at",
            )
        self.found = self.layer == found
        self._directions = directions
        self._rows = torch.from_numpy(directions.rows)
        self._last: Tensor | None = None

    @property
    def scale(self) -> Scale | None:
        """The classes' means along the directions, where they lie beside them and are of this layer."""
        tensors = self._directions.tensors
        means = [tensors[name] for name in ("baseline_mean", "target_mean") if name in tensors]
        if not self.found or len(means) < 2 or any(mean.shape != self._rows.shape[1:] for mean in means):
            return None
        baseline, target = (self._component(torch.from_numpy(mean)) for mean in means)
        return Scale(baseline, target) if baseline != target else None

    def hook(self, model: Model) -> Hook:
        """The hook that reads the last token of a pass over one sequence, and changes nothing."""

        def read(x: Tensor) -> Tensor:
            self._last = x[0, -1]
            return x

        return hook_at(model, Point("resid_pre", self.layer), read)

    def take(self) -> float:
        """The component at the last token of the pass that was made."""
        assert self._last is not None, "the pass went without the meter's hook"
        last, self._last = self._last, None
        return self._component(last)

    def _component(self, vector: Tensor) -> float:
        along = self._rows.double() @ vector.detach().cpu().double()
        return float(along[0]) if len(along) == 1 else float(along.norm())
