"""Directions encoded in `weight_edit.json`, so that a checkpoint holds its own directions."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.errors import UsageError
from weight_edit.utils.arrays import Numbers, as_float64


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
    found = unpacked_tensor(entry)
    # Of more rows than entries, the square of their number would be held.
    misshapen = found.ndim != 2 or not 0 < len(found) <= found.shape[1]
    if misshapen or not np.abs(as_float64(found) @ as_float64(found).T - np.eye(len(found))).max(initial=0.0) < 1e-4:
        raise UsageError("weight_edit.json: its directions are malformed; bake again")
    return found


def unpacked_tensor(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    """The tensor of a manifest entry made by `packed`, of any shape.

    Raises:
        UsageError: when the entry is malformed.
    """
    try:
        shape = tuple(entry["shape"])
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"{shape} is no shape")
        raw = base64.b64decode(entry["float32"], validate=True)
        found = np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
        if not np.isfinite(found).all():
            raise ValueError("not finite")
        if entry["sha256"] != hashlib.sha256(raw).hexdigest():
            raise ValueError("not of this digest")
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("weight_edit.json: its directions are malformed; bake again") from error


def _raw(directions: Numbers) -> bytes:
    return as_float64(directions).astype("<f4").tobytes()
