"""The edit that a chat tries as hooks, and how it is changed between turns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.kernel import Kernels
from weight_edit.plan.step import EditStep


@dataclass(frozen=True, eq=False, kw_only=True)
class ChatEdit:
    """An edit under trial: the fields of an `EditStep`, whose strength may also be 0, which is no edit.

    Attributes:
        directions: what it is made of.
        kind: a name of `edits.registry.edit_kinds`.
        strength: 0 is the unedited model, 1 the full edit.
        layers: blocks whose writers are edited; all when None.
        at: blocks at whose inputs the edit is made, for the kinds that are made there.
        kernel: further factors of the strength, by layer.
        options: of that kind of edit.
    """

    directions: DirectionRows
    kind: str = "ablate"
    strength: float = 1.0
    layers: frozenset[int] | None = None
    at: tuple[int, ...] = ()
    kernel: Kernels | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_step(cls, step: EditStep) -> "ChatEdit":
        """The edit of a step."""
        return cls(
            directions=step.directions,
            kind=step.kind,
            strength=step.strength,
            layers=step.layers,
            at=step.at,
            kernel=step.kernel,
            options=step.options,
        )

    @property
    def step(self) -> EditStep | None:
        """The step of the edit; None at strength 0.

        Raises:
            UsageError: a value that makes no sense for the kind, or no such kind.
        """
        if self.strength == 0:
            return None
        return EditStep(
            directions=self.directions,
            kind=self.kind,
            strength=self.strength,
            layers=self.layers,
            at=self.at,
            kernel=self.kernel,
            options=self.options,
        )

    @property
    def described(self) -> str:
        """One line that names the kind, the strength and the layers."""
        step = self.step
        return f"{self.kind}, strength 0: no edit" if step is None else step.described
