"""The result of a verdict, typed and ready for JSON."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.found_recipe import save_recipe
from weight_edit.errors import UsageError

Confidence = Literal["certain", "likely", "undecided"]
"""Certain: all that differs is accounted for, up to rounding. Likely: beyond chance, but something else differs, or the
anatomy is not known. Undecided: neither."""


@dataclass(frozen=True, eq=False, kw_only=True)
class EditedWriter:
    """One tensor that was edited.

    Attributes:
        name: of the tensor.
        role, layer: of the writer, "" and None where the anatomy does not say.
        operator: what was done to it.
        strength: 1 is a full edit; None where the operator has none.
        explained: the share of its difference that the operator explains.
        rounding: the energy of what is left over that of rounding every number once.
        correlation: of what it lost along the directions with what it had there; 1 for an ablation.
        left: the share of the component along the directions that is left, as a length.
        cosine: with the shared directions, the least of the principal angles'; None where none are shared.
        rows: (k, d) its own directions, in front of its norm.
    """

    name: str
    role: str
    layer: int | None
    operator: str
    strength: float | None
    explained: float
    rounding: float
    correlation: float | None
    left: float | None
    cosine: float | None
    rows: NDArray[np.float64]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the directions."""
        return {key: value for key, value in vars(self).items() if key != "rows"} | {"directions": len(self.rows)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Verdict:
    """What a model was made with from another one.

    Attributes:
        made_with: names of operators, in order where the figures tell it: "ablation", "fine-tune or merge", ...;
            ("undecided",) where the figures carry nothing, ("no change",) where no number differs.
        edited: whether one of them is an edit of directions.
        confidence: see `Confidence`.
        evidence: plain sentences.
        writers: the edited tensors.
        not_edited: writers of the residual stream that are as they were.
        rows: (k, d) orthonormal directions that the edited tensors share, in the stream; k is 0 where they do not.
        through_norms: whether the norms behind writers were allowed for.
        constants: names of biases, created or changed, whose values are part of the edit.
        recipe: the edit as a recipe's sections `directions` and `edit`; None where there is none to repeat.
        notes: what a reader should know.
    """

    made_with: tuple[str, ...]
    edited: bool
    confidence: Confidence
    evidence: tuple[str, ...]
    writers: tuple[EditedWriter, ...] = ()
    not_edited: tuple[str, ...] = ()
    rows: NDArray[np.float64]
    through_norms: bool = False
    constants: tuple[str, ...] = ()
    recipe: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Verdict({self.said!r}, {self.confidence})"

    @property
    def said(self) -> str:
        """The operators in a few words."""
        return " and ".join(self.made_with)

    @property
    def strength(self) -> float | None:
        """The median strength; None where there is none."""
        known = [writer.strength for writer in self.writers if writer.strength is not None]
        return float(np.median(known)) if known else None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the directions, which `save` writes."""
        return {
            "made_with": list(self.made_with),
            "edited": self.edited,
            "confidence": self.confidence,
            "evidence": list(self.evidence),
            "strength": self.strength,
            "directions": len(self.rows),
            "through_norms": self.through_norms,
            "writers": [writer.to_dict() for writer in self.writers],
            "not_edited": list(self.not_edited),
            "constants": list(self.constants),
            "edit": None if self.recipe is None else self.recipe["edit"],
            "notes": list(self.notes),
        }

    def save(self, path: str | Path, model: str) -> None:
        """Write the edit as a recipe, which `run` and `bake` carry out on any model of that width.

        Args:
            path: of a .yaml file.
            model: what the recipe edits unless another one is named.

        Raises:
            UsageError: no edit was found that can be repeated, or the file cannot be written.
        """
        if self.recipe is None:
            raise UsageError(f"what was found is {self.said}, so there is no edit to save")
        save_recipe(Path(path), self.recipe, model, self.said)
