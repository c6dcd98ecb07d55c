"""The entry of directions in a recipe's file: their numbers, or the name of a file beside it."""

from pathlib import Path
from typing import Any

from weight_edit.edits.direction_facts import KEPT
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_directions import packed_directions

LARGEST_INLINE = 100_000
"""Characters of packed directions that a recipe holds itself; longer ones are a file beside it."""


def beside(recipe: Path) -> Path:
    """The file of directions beside a recipe whose own file would be too large with them."""
    return recipe.with_suffix(".safetensors")


def fits_inline(rows: DirectionRows) -> bool:
    """Whether directions are few enough numbers for a recipe's own file."""
    entry = packed_directions(rows)
    packed = [entry, *entry.get("tensors", {}).values()]
    return sum(len(each["float32"]) for each in packed) <= LARGEST_INLINE


def recipe_entry(rows: DirectionRows, recipe: Path) -> dict[str, Any] | str:
    """The entry of directions in a recipe that is written at a path; a file of too many numbers is written beside it.

    Raises:
        UsageError: that file cannot be written.
    """
    if fits_inline(rows):
        return packed_directions(rows)
    import torch

    from weight_edit.directions.directions import Directions

    file = beside(recipe)
    facts = {key: value for key, value in rows.metadata.items() if key in KEPT}
    tensors = {name: torch.from_numpy(values) for name, values in rows.tensors.items()}
    Directions(torch.from_numpy(rows.rows), None, facts, tensors).save(file)
    return file.name
