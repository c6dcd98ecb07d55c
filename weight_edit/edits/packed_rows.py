"""Directions encoded as text, so that `weight_edit.json` and recipes hold their own directions."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.errors import UsageError
from weight_edit.utils.arrays import Numbers, as_float64
from weight_edit.utils.fixed_sums import inner_products


def packed(directions: Numbers) -> dict[str, Any]:
    """The manifest entry of directions: shape, little-endian float32 in base64, and SHA-256."""
    raw = _raw(directions)
    digest = hashlib.sha256(raw).hexdigest()
    return {"shape": list(directions.shape), "float32": base64.b64encode(raw).decode("ascii"), "sha256": digest}


def unpacked(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    """The directions of a manifest entry, (k, d_model).

    Raises:
        UsageError: when the entry is malformed.
    """
    try:
        return rows_in(entry)
    except ValueError as error:
        raise UsageError(_MALFORMED) from error


def unpacked_tensor(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    """The tensor of a manifest entry made by `packed`, of any shape.

    Raises:
        UsageError: when the entry is malformed.
    """
    try:
        return tensor_in(entry)
    except ValueError as error:
        raise UsageError(_MALFORMED) from error


def rows_in(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    """The orthonormal rows of an entry, (k, d_model).

    Raises:
        ValueError: says what about the entry is malformed.
    """
    found = tensor_in(entry)
    # Of more rows than entries, the square of their number would be held.
    if found.ndim != 2 or not 0 < len(found) <= found.shape[1]:
        raise ValueError(f"of shape {found.shape}, which is not (directions, width)")
    wide = as_float64(found)
    if not np.abs(inner_products(wide, wide) - np.eye(len(found))).max(initial=0.0) < 1e-4:
        raise ValueError("the rows are not orthonormal")
    return found


def tensor_in(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    """The tensor of an entry made by `packed`, of any shape.

    Raises:
        ValueError: says what about the entry is malformed.
    """
    missing = [key for key in ("shape", "float32", "sha256") if key not in entry]
    if missing:
        raise ValueError(f"{missing[0]} is missing")
    try:
        shape = tuple(entry["shape"])
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError
    except (TypeError, ValueError) as error:
        raise ValueError("shape is no list of numbers of entries") from error
    try:
        raw = base64.b64decode(entry["float32"], validate=True)
        found = np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"float32 does not hold {' x '.join(map(str, shape))} numbers in base64") from error
    if not np.isfinite(found).all():
        raise ValueError("a number is not finite")
    if entry["sha256"] != hashlib.sha256(raw).hexdigest():
        raise ValueError("the numbers are not those of its sha256")
    return found


_MALFORMED = "weight_edit.json: its directions are malformed; bake again"


def _raw(directions: Numbers) -> bytes:
    return as_float64(directions).astype("<f4").tobytes()
