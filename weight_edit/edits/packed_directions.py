"""Directions with tensors and facts as one entry of JSON or YAML: of a manifest's step, or of a recipe."""

from collections.abc import Mapping
from typing import Any

from weight_edit.edits.direction_facts import KEPT
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_rows import packed, rows_in, tensor_in
from weight_edit.errors import UsageError
from weight_edit.utils.names import unknown

KEYS = ("shape", "float32", "sha256", "tensors", *KEPT)
"""The keys of an entry: the first three are needed."""


def packed_directions(directions: DirectionRows) -> dict[str, Any]:
    """The entry of directions: their rows, the tensors beside them, and the facts that manifests keep."""
    metadata = directions.metadata
    tensors = {name: packed(values) for name, values in sorted(directions.tensors.items())}
    return {
        **packed(directions.rows),
        **({"tensors": tensors} if tensors else {}),
        **{key: metadata[key] for key in KEPT if key in metadata},
    }


def directions_in(entry: Mapping[str, Any]) -> DirectionRows:
    """The directions of an entry that somebody may have written by hand.

    Raises:
        ValueError: says what about the entry is malformed.
    """
    wrong = [str(key) for key in entry if key not in KEYS]
    if wrong:
        raise ValueError(str(unknown("key of directions", wrong[0], KEYS)))
    rows = rows_in(entry)
    tensors = entry.get("tensors", {})
    if not isinstance(tensors, Mapping) or not all(isinstance(each, Mapping) for each in tensors.values()):
        raise ValueError("tensors are no names with shape, float32 and sha256")
    read = {}
    for name, each in tensors.items():
        try:
            read[str(name)] = tensor_in(each)
        except ValueError as error:
            raise ValueError(f"the tensor '{name}': {error}") from error
        if read[str(name)].shape[-1:] != rows.shape[1:]:
            raise ValueError(f"the tensor '{name}' is not as wide as the directions, {rows.shape[1]}")
    try:
        return DirectionRows(rows, {key: entry[key] for key in KEPT if key in entry}, read)
    except UsageError as error:
        raise ValueError(str(error)) from error
