"""The directions that a search can take: what finders found at each place, and what lies between two layers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.edits.packed_rows import packed, unpacked
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.utils.arrays import Floats, as_float64

if TYPE_CHECKING:
    from weight_edit.directions.candidate import Candidate
    from weight_edit.directions.directions import Directions
    from weight_edit.directions.find_folder import Searched

Rows = NDArray[np.float32]

DEPENDENT = 1e-3
"""The length of what a unit row adds to the span of those before it, below which it adds nothing."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a finder found at one place.

    Attributes:
        position: from a prompt's end; None for the mean over a prompt's tokens, or for none.
        layer: whose input it was found at; None where it belongs to no layer.
        rows: (k, d_model) float32, orthonormal, the leading direction first.
    """

    position: int | None
    layer: int | None
    rows: Rows


@dataclass(frozen=True, eq=False, kw_only=True)
class Finding:
    """All that one find found.

    Attributes:
        name: what the search calls it: its method, and what tells it from another find by the same one.
        found: at each place that has a direction, in the finder's order.
        chosen: the number of the one that the find chose.
        between: there is one direction at each layer, pointing to the same class everywhere, so that directions of
            neighbouring layers can be averaged.
    """

    name: str
    found: tuple[Found, ...]
    chosen: int
    between: bool

    @cached_property
    def positions(self) -> tuple[int | None, ...]:
        """The positions of prompts that it has places at, in order."""
        return tuple(dict.fromkeys(each.position for each in self.found))

    @property
    def choice(self) -> Found:
        """What the find chose."""
        return self.found[self.chosen]

    def rows(self, position: int | None, layer: float, count: int | None = None) -> Rows:
        """The directions at a place, orthonormal rows (k, d_model) float32: at a whole layer the find's own bits.

        Between two layers `a` and `b`, that of `(b - layer) r_a + (layer - a) r_b` of their unit vectors, as
        p-e-w/heretic has it. Where nothing lies between layers, or nothing was found at one, what is nearest is taken:
        at the same position where there is anything, and the lower layer of two equally near ones.

        Args:
            position: one of the search's.
            layer: a real number from 0 to the last layer.
            count: of rows, the leading ones; all when None.
        """
        there = [each for each in self.found if each.position == position] or list(self.found)
        if self.between and layer != math.floor(layer):
            by_layer = {each.layer: each for each in there}
            below, above = by_layer.get(math.floor(layer)), by_layer.get(math.ceil(layer))
            if below is not None and above is not None:
                share = layer - math.floor(layer)
                between = (1.0 - share) * as_float64(below.rows) + share * as_float64(above.rows)
                # Halfway between opposite directions there is none.
                if _length(between[0]) > DEPENDENT:
                    return orthonormalised(between).astype(np.float32)
        nearest = min(there, key=lambda each: 0.0 if each.layer is None else abs(each.layer - layer))
        return nearest.rows[:count]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them, to the bit."""
        found = [
            {"position": each.position, "layer": each.layer, "directions": packed(each.rows)} for each in self.found
        ]
        return {"name": self.name, "found": found, "chosen": self.chosen, "between": self.between}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Finding":
        """What `to_dict` gave."""
        return cls(
            name=str(entry["name"]),
            found=tuple(
                Found(each["position"], each["layer"], unpacked(each["directions"])) for each in entry["found"]
            ),
            chosen=int(entry["chosen"]),
            between=bool(entry["between"]),
        )

    @classmethod
    def of(cls, name: str, searched: "Searched", chosen: "Directions") -> "Finding":
        """What `find_requested` left: its candidates, and the one that it chose.

        Raises:
            UnsupportedError: no candidate has a direction.
        """
        found: list[Found] = []
        number = None
        for candidate in searched.candidates:
            if candidate.norm == 0.0 or not bool(candidate.rows.isfinite().all()):
                continue
            place = candidate.position, candidate.layer
            if place == (chosen.metadata["position"], chosen.metadata["layer"]):
                number = len(found)
            found.append(Found(*place, orthonormal_rows(candidate.rows).astype(np.float32)))
        if number is None:
            raise UnsupportedError(f"{name}: no candidate has a direction that a search could take")
        return cls(name=name, found=tuple(found), chosen=number, between=_between(searched.candidates))


def _between(candidates: "Sequence[Candidate]") -> bool:
    """Whether each candidate is one direction that an addition would add, so that all point to the target."""
    along = [
        len(each.rows) == 1 and each.layer is not None and each.vector is not None and _same(each.rows[0], each.vector)
        for each in candidates
        if each.norm
    ]
    return len(along) > 1 and all(along)


def _same(row: Any, vector: Any) -> bool:
    first, second = as_float64(row), as_float64(vector)
    return bool(first @ second >= (1 - 1e-6) * np.linalg.norm(first) * np.linalg.norm(second))


@dataclass(frozen=True, eq=False, kw_only=True)
class Places:
    """The directions that a search can take, the same bits on every machine once they are made.

    Attributes:
        n_layers: of the model.
        findings: of each finder; the first is the search's own choice where nothing else is said.
    """

    n_layers: int
    findings: tuple[Finding, ...]

    @cached_property
    def by_name(self) -> dict[str, Finding]:
        """The findings by name, in order."""
        return {each.name: each for each in self.findings}

    def within(self, low: float, high: float) -> "Places":
        """The places from one real layer to another, those without a layer, and what the finds chose."""

        def kept(finding: Finding) -> Finding:
            found = [
                each
                for number, each in enumerate(finding.found)
                if number == finding.chosen or each.layer is None or math.floor(low) <= each.layer <= math.ceil(high)
            ]
            return replace(finding, found=tuple(found), chosen=found.index(finding.choice))

        return replace(self, findings=tuple(map(kept, self.findings)))

    def rows(self, name: str, at: Sequence[tuple[int | None, float]], count: int | None = None) -> Rows:
        """The directions of one finding at some places together, orthonormal rows (k, d_model) float32.

        Args:
            at: position and real layer of each place; what is within the span of those before is left out.
            count: of rows at each place, the leading ones; all when None.
        """
        found = [self.by_name[name].rows(position, layer, count) for position, layer in at]
        if len(found) == 1:
            return found[0]
        return orthonormalised(as_float64(np.concatenate(found))).astype(np.float32)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` makes the same of them, to the bit."""
        return {"n_layers": self.n_layers, "findings": [each.to_dict() for each in self.findings]}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Places":
        """The places that `to_dict` gave.

        Raises:
            KeyError, TypeError, ValueError: a malformed entry.
        """
        return cls(
            n_layers=int(entry["n_layers"]), findings=tuple(Finding.from_dict(each) for each in entry["findings"])
        )

    @classmethod
    def of(cls, finds: "Mapping[str, tuple[Searched, Directions]]") -> "Places":
        """The places of several finds, each by the name that the search is to call it by.

        Raises:
            UnsupportedError: of a find no candidate has a direction.
        """
        layers = {searched.layers for searched, _ in finds.values()}
        if len(layers) != 1:
            raise ValueError(f"finds of {len(layers)} unlike models")
        return cls(
            n_layers=layers.pop(),
            findings=tuple(Finding.of(name, searched, chosen) for name, (searched, chosen) in finds.items()),
        )


def orthonormalised(rows: Floats) -> Floats:
    """Orthonormal rows with the span of `rows` (k, d), each as near to its own as those before it allow.

    Gram and Schmidt's way, twice over, with sums that are exact before they are rounded (`math.fsum`): linear algebra
    libraries differ in the last bits from machine to machine, and machines that share a search must make the same
    candidates. Rows that add nothing to the span are left out.
    """
    basis: list[Floats] = []
    for row in rows:
        if not row.any():
            continue
        rest = row / _length(row)
        for _ in range(2):
            for done in basis:
                rest = rest - math.fsum((rest * done).tolist()) * done
        length = _length(rest)
        if length > DEPENDENT:
            basis.append(rest / length)
    return np.stack(basis)


def _length(row: Floats) -> float:
    return math.sqrt(math.fsum((row * row).tolist()))
