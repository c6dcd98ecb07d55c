"""Directions inside `weight_edit.json`, so that an edited checkpoint says by itself what it was edited with."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.errors import UsageError
from weight_edit.utils.arrays import Numbers, as_float64


def packed(directions: Numbers) -> dict[str, Any]:
    """Directions as they stand in the manifest: shape, little-endian float32 in base64, and their SHA-256."""
    raw = _raw(directions)
    digest = hashlib.sha256(raw).hexdigest()
    return {"shape": list(directions.shape), "float32": base64.b64encode(raw).decode("ascii"), "sha256": digest}


def unpacked(entry: Mapping[str, Any]) -> NDArray[np.float32]:
    """The directions of a manifest, (k, d_model).

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
    """Any tensor that lies in a manifest as `packed` gave it.

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
