"""The edit step from the options of `bake` and `adapter`."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from weight_edit.cli.values import key_values, mapping

if TYPE_CHECKING:
    from weight_edit.plan.step import EditStep


def edit_steps(
    directions: Path,
    *,
    orthonormalize: bool,
    kind: str,
    strength: float,
    layers: str | None,
    at: str | None,
    kernel: str | None,
    option: Iterable[str] | None,
) -> "list[EditStep]":
    """The single step of an edit, from the options of `bake` and `adapter`.

    Args:
        directions: the file.
        orthonormalize: make its rows orthonormal first.
        kind, strength, layers, at, kernel, option: as the command line has them.

    Raises:
        UsageError: a file or a value that cannot be used, or values that make no sense together.
    """
    from weight_edit.baking.bake import steps_of
    from weight_edit.directions.file import read_rows
    from weight_edit.plan.plan import parse_layers

    return steps_of(
        read_rows(directions, orthonormalize=orthonormalize),
        kind=kind,
        strength=strength,
        layers=parse_layers(layers),
        at=sorted(parse_layers(at) or ()),
        kernel=mapping(kernel, "--kernel"),
        options=key_values(option, "--option"),
    )
