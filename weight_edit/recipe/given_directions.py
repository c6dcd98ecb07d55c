"""The entry of directions that a recipe brings along: in the recipe itself, or in a file beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.edits.packed_directions import directions_in


def check_given(name: str, value: Any) -> None:
    """Refuse directions that are neither packed nor a file's path within the recipe's folder; no file is read.

    Raises:
        ValueError: says what is wrong.
    """
    if isinstance(value, str):
        path = Path(value)
        if not value or path.is_absolute() or ".." in path.parts or path.suffix != ".safetensors":
            raise ValueError(
                f"'{name}': {value!r} is no path of a .safetensors file in the recipe's folder or below it; put the "
                "file there, and write its path from there"
            )
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"'{name}': write the path of a .safetensors file, or shape, float32 and sha256")
    try:
        directions_in(value)
    except ValueError as error:
        raise ValueError(f"'{name}': {error}") from error
