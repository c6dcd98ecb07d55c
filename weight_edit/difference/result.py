"""The result of `diff`, typed and ready for JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.found_recipe import RECIPES
from weight_edit.difference.shared import SharedDirection
from weight_edit.difference.verdict_result import Verdict
from weight_edit.errors import UsageError
from weight_edit.tables.shown import Shown

if TYPE_CHECKING:
    from weight_edit.directions.directions import Directions


@dataclass(frozen=True)
class Fit:
    """The fit of an ablation `-s V V^T A` to a tensor's difference `D = B - A`.

    Attributes:
        explained: 1 - |D + s V V^T A|^2 / |D|^2 with the s below; the share that rounding takes is never explained.
        strength: the s that explains most: 1 for a full ablation, 2 for a reflection.
        explained_fully: the same with s = 1.
        side: "columns" where the vectors along the directions are the matrix's columns (the axis before the last),
            "rows" where they are its rows (the last axis).
    """

    explained: float
    strength: float
    explained_fully: float
    side: str


@dataclass(frozen=True, kw_only=True)
class TensorDifference:
    """The difference of one tensor.

    Attributes:
        name: of the tensor.
        dtypes: in A and in B.
        shape: of the tensor as it is stored.
        entries: how many numbers differ; None where they were not decoded.
        relative: |B - A| / |A|; infinite where A is zero; None where the numbers were not decoded or not finite.
        noise: the share of |B - A|^2 that rounding to the storage format explains.
        rank: numerical rank of B - A above that noise; None where it is full (above 16) or there is no matrix.
        full_rank: whether the rank is full.
        shared: by the directions that the differences share; None where the tensor has no axis as wide as the stream,
            or its difference is nothing but rounding.
        own: by as many directions of its own as its rank; None where that is none or more than four.
        problem: why there are no figures, if so.
    """

    name: str
    dtypes: tuple[str, str]
    shape: tuple[int, ...]
    entries: int | None = None
    relative: float | None = None
    noise: float | None = None
    rank: int | None = None
    full_rank: bool = False
    shared: Fit | None = None
    own: Fit | None = None
    problem: str | None = None

    @property
    def best(self) -> tuple[str, Fit] | None:
        """The better fit, "shared" or "own"; "own" only if it explains far more."""
        if self.shared is not None and (self.own is None or self.shared.explained > self.own.explained - 0.05):
            return "shared", self.shared
        return None if self.own is None else ("own", self.own)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "dtypes": list(self.dtypes),
            "shape": list(self.shape),
            "entries": self.entries,
            "relative": self.relative,
            "noise": self.noise,
            "rank": self.rank,
            "full_rank": self.full_rank,
            "shared": None if self.shared is None else vars(self.shared),
            "own": None if self.own is None else vars(self.own),
            "problem": self.problem,
        }


@dataclass(frozen=True)
class Reshaped:
    """A tensor whose numbers cannot be compared, since dtype or shape differ in B."""

    name: str
    dtypes: tuple[str, str]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"name": self.name, "dtypes": list(self.dtypes), "shapes": [list(shape) for shape in self.shapes]}


@dataclass(frozen=True, eq=False, kw_only=True)
class Difference(Shown):
    """The differences between two checkpoints.

    Attributes:
        a, b: their public names.
        architectures: of each.
        width: of the residual stream, by the config of A; None where it does not say.
        files_equal: how many files, weights apart, are the same.
        files_different, files_only_a, files_only_b: the others, weights apart.
        tensors_equal: how many tensors are the same byte for byte; scales count with the numbers that they scale.
        tensors: those that differ.
        reshaped: those of another shape, or of another dtype that cannot be decoded.
        only_a, only_b: tensors that one side has.
        directions: what the differences share: what is known of each direction, the strongest first.
        rows: the directions themselves, orthonormal rows (k, width) float32; k may be 0.
        own_rows: tensor -> its own directions, orthonormal rows, where the shared ones do not explain it.
        verdict: what B was made with, where that was asked.
        notes: what a reader should know.
        bytes_read, seconds: what it took.
    """

    a: str
    b: str
    architectures: tuple[str, str]
    width: int | None
    files_equal: int
    files_different: tuple[str, ...]
    files_only_a: tuple[str, ...]
    files_only_b: tuple[str, ...]
    tensors_equal: int
    tensors: tuple[TensorDifference, ...]
    reshaped: tuple[Reshaped, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    directions: tuple[SharedDirection, ...]
    rows: NDArray[np.float32]
    own_rows: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()
    bytes_read: int = 0
    seconds: float = 0.0

    def __repr__(self) -> str:
        found = "equal" if self.equal else f"{len(self.tensors)} tensors differ, {len(self.rows)} shared directions"
        return f"Difference({self.a!r}, {self.b!r}, {found})"

    @property
    def equal(self) -> bool:
        """Whether all tensors and files are equal."""
        files = self.files_different or self.files_only_a or self.files_only_b
        return not (files or self.tensors or self.reshaped or self.only_a or self.only_b)

    @property
    def explained(self) -> float | None:
        """The mean share explained by the shared directions, over tensors as wide as the stream."""
        fits = [tensor.shared.explained for tensor in self.tensors if tensor.shared is not None]
        return sum(fits) / len(fits) if fits else None

    @property
    def strength(self) -> float | None:
        """The median strength of the shared ablation, over tensors that it explains by half."""
        fits = [t.shared.strength for t in self.tensors if t.shared is not None and t.shared.explained > 0.5]
        return float(np.median(fits)) if fits else None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without the directions, which `save` writes."""
        return {
            "a": self.a,
            "b": self.b,
            "architectures": list(self.architectures),
            "equal": self.equal,
            "width": self.width,
            "files": {
                "equal": self.files_equal,
                "different": list(self.files_different),
                "only_a": list(self.files_only_a),
                "only_b": list(self.files_only_b),
            },
            "tensors_equal": self.tensors_equal,
            "tensors_different": [tensor.to_dict() for tensor in self.tensors],
            "tensors_reshaped": [tensor.to_dict() for tensor in self.reshaped],
            "tensors_only_a": list(self.only_a),
            "tensors_only_b": list(self.only_b),
            "shared_directions": [direction.to_dict() for direction in self.directions],
            "explained": self.explained,
            "strength": self.strength,
            **({} if self.verdict is None else {"verdict": self.verdict.to_dict()}),
            "notes": list(self.notes),
            "bytes_read": self.bytes_read,
            "seconds": self.seconds,
        }

    def as_directions(self) -> "Directions":
        """The shared directions as a `Directions` object, for `bake` and `verify`.

        Raises:
            UsageError: the differences share none.
        """
        if not len(self.rows):
            raise UsageError(f"the differences of {self.a} and {self.b} share no direction, so there is none to save")
        import torch

        from weight_edit.directions.directions import Directions
        from weight_edit.version import __version__

        metadata = {
            "method": "diff",
            "a": self.a,
            "b": self.b,
            "model": self.a,
            "shared": [direction.to_dict() for direction in self.directions],
            "explained": self.explained,
            "strength": self.strength,
            "tensors": sum(tensor.shared is not None for tensor in self.tensors),
            "versions": {"weight_edit": __version__},
        }
        return Directions(torch.from_numpy(self.rows), None, metadata)

    def save(self, path: str | Path, *, model: str | None = None) -> None:
        """Write the shared directions as a directions file; or the verdict's edit as a recipe, where that is asked.

        Args:
            path: of a file; a recipe's ends in .yaml.
            model: what the recipe edits unless another model is named; A when None.

        Raises:
            UsageError: there are none, there is no verdict or no edit in it, or the file cannot be written.
        """
        if Path(path).suffix in RECIPES:
            if self.verdict is None:
                raise UsageError("a recipe is made of a verdict: compare with `verdict=True`", option="verdict")
            self.verdict.save(path, model or self.a)
            return
        self.as_directions().save(path)
