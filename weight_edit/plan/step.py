"""One step of an edit: its kind, directions, strength and layers. Steps are composed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from weight_edit.edits.changes import Addition, BasisChange, Change, RuntimeOnly, StreamMap
from weight_edit.edits.direction_facts import KEPT
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.kernel import Kernels, kernels_in_words
from weight_edit.edits.packed_directions import packed_directions
from weight_edit.edits.packed_rows import unpacked, unpacked_tensor
from weight_edit.edits.registry import Given, edit_named
from weight_edit.errors import UsageError
from weight_edit.utils.arrays import Floats, as_float64
from weight_edit.utils.renamed import renamed_fields
from weight_edit.utils.settings import validated


@renamed_fields(edit="kind")
@dataclass(frozen=True, eq=False, kw_only=True)
class EditStep:
    """One edit, applied to the result of the steps before it.

    Attributes:
        directions: what it is made of.
        kind: a name of `edits.registry.edit_kinds`.
        strength: 1 is the full edit; of an ablation a fraction removes a part, 2 reflects; of an addition it is the
            factor of the vector, and may be negative.
        layers: blocks whose writers are edited; all when None.
        at: blocks at whose inputs the edit is made, for the kinds that are made there.
        kernel: further factors of the strength, by layer.
        options: of that kind of edit.

    Raises:
        UsageError: a value that makes no sense for that kind.
        UsageError: no such kind.
    """

    directions: DirectionRows
    kind: str = "ablate"
    strength: float = 1.0
    layers: frozenset[int] | None = None
    at: tuple[int, ...] = ()
    kernel: Kernels | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        change = self.change
        addition = isinstance(change, Addition)
        if isinstance(change, RuntimeOnly) and self.at and self.partial:
            raise UsageError(
                "`at` edits the stream at a layer's input, `layers` and `kernel` what blocks write to it: give one of "
                "them",
                option=("at", "layers", "kernel"),
            )
        if addition and (self.layers is not None or self.kernel is not None):
            raise UsageError(
                f"edit {self.kind} adds at layers: name them with `at`, and leave `layers` and `kernel` out",
                option=("at", "layers", "kernel"),
            )
        if isinstance(change, BasisChange) and self.partial:
            raise UsageError(
                f"edit {self.kind} at a layer turns all that follows it: leave `layers` and `kernel` out",
                option=("layers", "kernel"),
            )
        if isinstance(change, StreamMap) and change.map.constant is not None and self.partial:
            raise UsageError(
                f"edit {self.kind} sets a component of the whole stream: leave `layers` and `kernel` out, or use "
                "`kind='ablate'`",
                option=("layers", "kernel", "kind"),
            )
        if addition and not np.isfinite(self.strength):
            raise UsageError(f"strength {self.strength} is not a number")
        if not addition and not 0 < self.strength <= 2:
            raise UsageError(f"strength {self.strength} is outside of (0, 2]; 1 is the full edit")

    @cached_property
    def change(self) -> Change:
        """The change that the step makes of the residual stream."""
        layer = self.directions.metadata.get("layer")
        given = Given(
            as_float64(self.directions.rows),
            lambda name: self.directions.need(name, self.kind),
            self.at,
            layer if isinstance(layer, int) and not isinstance(layer, bool) else None,
            self.strength,
        )
        return edit_named(self.kind)(given, self.options)

    @property
    def described(self) -> str:
        """One line that names the kind, the strength and the layers."""
        where = "all layers" if self.layers is None else f"layers {', '.join(map(str, sorted(self.layers)))}"
        if self.at:
            where = f"at {', '.join(map(str, self.at))}"
        kernel = f", {kernels_in_words(self.kernel.model_dump())}" if self.kernel else ""
        options = "".join(f", {key} {value}" for key, value in sorted(self.options.items()))
        count = len(self.directions.rows)
        along = f"{count} direction{'s' * (count != 1)}"
        return f"{self.kind} along {along}, strength {self.strength:g}, {where}{kernel}{options}"

    @property
    def partial(self) -> bool:
        """Whether writers are edited unequally, or some not at all."""
        return self.layers is not None or self.kernel is not None

    def to_dict(self) -> dict[str, Any]:
        """The step's manifest entry: enough to repeat the edit."""
        change = self.change
        # Where an addition goes that names no layer is known from its directions; the manifest says it outright.
        at = sorted(change.vectors) if isinstance(change, Addition) else list(self.at)
        said = {
            "edit": self.kind,
            "strength": self.strength,
            "layers": None if self.layers is None else sorted(self.layers),
            **({"at": at} if at else {}),
            **({"kernel": self.kernel.model_dump()} if self.kernel else {}),
            **({"options": dict(self.options)} if self.options else {}),
        }
        return said | {"directions": packed_directions(self.directions)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "EditStep":
        """The step of a manifest entry, as `to_dict` gives it.

        Raises:
            KeyError, TypeError, ValueError: a malformed entry.
        """
        known = entry["directions"]
        if not isinstance(known, Mapping) or not isinstance(known.get("tensors", {}), Mapping):
            raise TypeError("directions are keys and values")
        tensors = {str(name): unpacked_tensor(values) for name, values in known.get("tensors", {}).items()}
        metadata = {key: known[key] for key in KEPT if key in known}
        layers = entry["layers"]
        return cls(
            directions=DirectionRows(unpacked(known), metadata, tensors),
            kind=str(entry["edit"]),
            strength=float(entry["strength"]),
            layers=None if layers is None else frozenset(int(layer) for layer in layers),
            at=tuple(int(layer) for layer in entry.get("at", ())),
            kernel=validated(Kernels, entry["kernel"], "kernel") if "kernel" in entry else None,
            options=dict(entry.get("options", {})),
        )


def with_rows(step: EditStep, rows: Floats) -> EditStep:
    """The same step with other directions, of any width, and random tensors to match.

    For a proof on a narrow copy: the numbers do not matter there, only where they go.
    """
    width = rows.shape[1]
    generator = np.random.default_rng(0)
    made = {}
    for name, values in step.directions.tensors.items():
        shape = (*np.shape(values)[:-1], width)
        made[name] = generator.standard_normal(shape) / np.sqrt(width)
    if "left" in made and "right" in made:
        # An eraser's factors are dual to one another.
        made["left"] = made["right"] = as_float64(rows)
    directions = DirectionRows(rows.astype(np.float32), dict(step.directions.metadata), made)
    return replace(step, directions=directions)


def needs_proof(steps: Sequence[EditStep]) -> bool:
    """Whether the edit depends on more than the writers: biases, readers or norms."""
    changes = [step.change for step in steps]
    return any(
        isinstance(change, Addition | BasisChange)
        or (isinstance(change, StreamMap) and change.map.constant is not None)
        for change in changes
    )
