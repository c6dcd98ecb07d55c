"""The directions that a recipe brings along, read without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.directions.file import read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_directions import directions_in
from weight_edit.errors import UsageError
from weight_edit.recipe.recipe import Recipe


def given_directions(recipe: Recipe) -> dict[str, DirectionRows]:
    """The directions of a recipe's section `directions`, by name.

    Raises:
        UsageError: a file that cannot be used, or that is not in the recipe's folder.
    """
    return {name: _read(name, value, recipe.folder) for name, value in recipe.directions.items()}


def _read(name: str, value: str | Mapping[str, Any], folder: Path | None) -> DirectionRows:
    if not isinstance(value, str):
        return directions_in(value)
    if folder is None:
        raise UsageError(
            f"'directions.{name}' is a file beside the recipe, which is in no folder: read it by `load_recipe`, or "
            "write shape, float32 and sha256"
        )
    # A recipe may be a stranger's: a link out of its folder would read what its user did not give.
    if not (folder / value).resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"'directions.{name}': {value} leads out of the recipe's folder; put the file itself there")
    return read_rows(folder / value)
