"""The registry of edits: each is one file in `kinds/` with `@edit("its-name")`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from weight_edit.edits.changes import Change
from weight_edit.errors import UsageError
from weight_edit.utils.arrays import Floats
from weight_edit.utils.registry import Function, Named, Registry


class Needed(Protocol):
    """A function from a name to a tensor stored beside the directions, float64.

    Raises `UsageError` if there is none.
    """

    def __call__(self, name: str) -> Floats: ...


@dataclass(frozen=True)
class Given:
    """The arguments that every kind of edit is built from.

    Attributes:
        rows: the directions, orthonormal rows (k, d_model) float64.
        need: gives a tensor that lies beside them, such as "baseline_mean".
        at: blocks at whose inputs the edit is asked for; empty where none were named.
        layer: where the directions were found; None where that is not known.
        strength: as asked for; a `StreamMap` is scaled by it afterwards and need not look.
    """

    rows: Floats
    need: Needed
    at: tuple[int, ...]
    layer: int | None
    strength: float

    def vector(self, name: str) -> Floats:
        """A stored tensor that is one vector of the stream, (d_model,) float64.

        Raises:
            UsageError: there is none of that name, or it has another shape.
        """
        found = self.need(name)
        if found.size != self.rows.shape[1]:
            raise UsageError(
                f"`{name}` beside the directions has shape {found.shape}, but is to be one vector {self.rows.shape[1]} "
                "wide; find the directions again"
            )
        return found.reshape(-1)

    @property
    def layer_found(self) -> int:
        """The layer at whose input the directions were found.

        Raises:
            UsageError: it is not known.
        """
        if self.layer is None:
            raise UsageError(
                "the directions do not say at which layer they were found; pass `options: enter=embedding`",
                option="options",
            )
        return self.layer


EDITS = Registry(what="edit", package="weight_edit.edits.kinds", kind=Named[Change])


def edit(name: str, *, paper: str | None = None) -> Callable[[Function], Function]:
    """Register a function `(given, options)` that says what an edit does to the stream, under its name for `--kind`."""
    return EDITS.register(name, paper=paper)


edit_kinds, edit_named = EDITS.all, EDITS.named


def papers_of(kinds: Iterable[str]) -> dict[str, list[str]]:
    """The arXiv ids of the papers that kinds of edits follow, by name; a kind that follows none is left out."""
    known = edit_kinds()
    return {kind: list(known[kind].papers) for kind in sorted(set(kinds)) if kind in known and known[kind].papers}
