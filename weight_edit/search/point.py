"""A point of the search: an edit that can be tried under hooks, baked, and written as a recipe."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_rows import packed, unpacked
from weight_edit.plan.hooks import plan_hooks
from weight_edit.plan.plan import plan_edit
from weight_edit.plan.step import EditStep
from weight_edit.runtime.loading import Model
from weight_edit.runtime.variants import Variant
from weight_edit.search.strengths import Strengths


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """An ablation: directions, and a strength for each writer.

    Attributes:
        rows: directions (k, d_model) float32, orthonormal rows, removed together.
        strengths: of the writers.
        keep_norms: the vectors of weights keep their lengths (edit `norm-preserving`).
        embeddings: "both" edits a tied unembedding with its embedding, "untie" writes an unembedding of its own.
        origin: where it comes from, in a word or two, such as "plain", "sampler" or "descent".
        facts: what else is known of how it was made, JSON values: its place, settings of the optimiser.
    """

    rows: NDArray[np.float32]
    strengths: Strengths
    keep_norms: bool = False
    embeddings: str = "both"
    origin: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def step(self) -> EditStep:
        """The edit that `bake` makes."""
        return EditStep(
            directions=DirectionRows(self.rows),
            kind="norm-preserving" if self.keep_norms else "ablate",
            kernel=self.strengths.kernels,
        )

    def variant(self, model: Model) -> Variant:
        """The edit as hooks, which agree with the baked weights."""
        plan = plan_edit(model.anatomy, [self.step], model.parameter, embeddings=self.embeddings)
        return Variant(tuple(plan_hooks(plan, model.parameter)))

    @cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name the edit, whatever it comes from."""
        said = {key: value for key, value in self.to_dict().items() if key not in ("origin", "facts")}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same point of them, to the bit."""
        return {
            "directions": packed(self.rows),
            "strengths": self.strengths.kernels.model_dump(),
            "keep_norms": self.keep_norms,
            "embeddings": self.embeddings,
            "origin": self.origin,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Point":
        """The point that `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: a malformed entry.
        """
        strengths = entry["strengths"]
        return cls(
            rows=unpacked(entry["directions"]),
            strengths=Strengths(strengths["embedding"], tuple(strengths["attention"]), tuple(strengths["mlp"])),
            keep_norms=bool(entry["keep_norms"]),
            embeddings=str(entry["embeddings"]),
            origin=str(entry["origin"]),
            facts=dict(entry["facts"]),
        )
