"""Directions inside `weight_edit.json`, so that an edited checkpoint says by itself what it was edited with."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from weight_edit.errors import UsageError


def packed(directions: Tensor) -> dict[str, Any]:
    """Directions as they stand in the manifest: shape, little-endian float32 in base64, and their SHA-256."""
    raw = _raw(directions)
    digest = hashlib.sha256(raw).hexdigest()
    return {"shape": list(directions.shape), "float32": base64.b64encode(raw).decode("ascii"), "sha256": digest}


def unpacked(entry: Mapping[str, Any]) -> Tensor:
    """The directions of a manifest.

    Raises:
        UsageError: when the entry is malformed.
    """
    try:
        rows, width = (int(length) for length in entry["shape"])
        raw = bytearray(base64.b64decode(entry["float32"], validate=True))
        found = torch.frombuffer(raw, dtype=torch.float32).reshape(rows, width).clone()
        gram = found.double() @ found.double().T
        if not (gram - torch.eye(rows, dtype=torch.float64)).abs().max() < 1e-4:
            raise ValueError("not orthonormal")
        return found
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UsageError("weight_edit.json: its directions are malformed; bake again") from error


def _raw(directions: Tensor) -> bytes:
    return directions.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
