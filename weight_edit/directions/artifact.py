"""The file that directions are kept in: one safetensors file whose header says how they were found."""

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from weight_edit.edits import orthonormal_rows
from weight_edit.errors import UsageError
from weight_edit.finite import finite

KEY = "weight_edit"
TOLERANCE = 5e-3
ROUNDING = 1e-6


@dataclass(frozen=True)
class Directions:
    """Directions in a model's residual stream.

    Attributes:
        direction: orthonormal rows, (k, d_model) float32.
        candidates: what they were chosen from, unnormalised, (n_positions, n_layers, d_model) float32; None
            where the finder makes none.
        metadata: JSON values: method, layer, position, model, prompt sets, scores and so on.
    """

    direction: Tensor
    candidates: Tensor | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def d_model(self) -> int:
        """Width of the residual stream that the directions belong to."""
        return int(self.direction.shape[1])

    def check_width(self, d_model: int) -> None:
        """Refuse directions of another model's width.

        Raises:
            UsageError: names both widths.
        """
        if self.d_model != d_model:
            raise UsageError(
                f"the directions are {self.d_model} wide, but the model's residual stream is {d_model} wide; "
                "use directions found on this model"
            )

    def save(self, path: str | Path) -> None:
        """Write the file: whole or not at all, and the same bytes for the same content.

        Raises:
            UsageError: the folder does not exist or cannot be written, or `path` is a folder.
        """
        path = Path(path)
        tensors = {"direction": self.direction.float().contiguous()}
        if self.candidates is not None:
            tensors["candidates"] = self.candidates.float().contiguous()
        text = json.dumps(finite(self.metadata), sort_keys=True, allow_nan=False)
        data = to_bytes(tensors, metadata={KEY: text})
        if path.is_dir():
            raise UsageError(f"{path} is a folder; give the name of a file such as directions.safetensors")
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            # A temporary file is private to its owner; the finished one gets what the umask allows.
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o666 & ~umask)
            partial.replace(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)


def load_directions(path: str | Path, *, orthonormalize: bool = False) -> Directions:
    """Read directions from a file of this package, or any safetensors file with a `direction`.

    Args:
        path: the file; its `direction` has shape (d_model,) or (k, d_model), in any floating dtype.
        orthonormalize: accept rows that are not orthonormal, and make them so (their span stays).

    Raises:
        UsageError: no such file, not safetensors, no `direction`, wrong shape or dtype, not finite, a zero
            row, or rows that are not orthonormal.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no directions file {path}; make one with `find`")
    try:
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            if "direction" not in names:
                held = ", ".join(sorted(names)[:4]) or "nothing"
                raise UsageError(f"{path} has no tensor `direction` (it holds {held}); make one with `find`")
            direction = file.get_tensor("direction")
            candidates = file.get_tensor("candidates") if "candidates" in names else None
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"{path} is not a safetensors file ({error}); make one with `find`") from error
    metadata = _metadata(text, path)
    rows = _rows(direction, path)
    # By how much the rows' products differ from 0 and 1.
    off = (rows @ rows.T - torch.eye(len(rows), dtype=rows.dtype)).abs()
    if off.max() > TOLERANCE and not orthonormalize:
        kind = "of unit length" if bool(off.diagonal().max() > TOLERANCE) else "orthogonal"
        raise UsageError(
            f"{path}: the rows of `direction` are not {kind} (off by {float(off.max()):.2g}); "
            "pass --orthonormalize to make them orthonormal"
        )
    if off.max() > ROUNDING:
        # Of rows stored in half precision, what they are off by would be left in the stream.
        rows = orthonormal_rows(rows)
    if candidates is not None:
        _check_candidates(candidates, rows.shape[1], path)
        candidates = candidates.float()
    return Directions(rows.float(), candidates, metadata)


def _rows(direction: Tensor, path: Path) -> Tensor:
    if not direction.is_floating_point():
        raise UsageError(f"{path}: `direction` is {direction.dtype}, not a floating dtype")
    if direction.ndim not in (1, 2) or 0 in direction.shape:
        shape = tuple(direction.shape)
        raise UsageError(f"{path}: `direction` has shape {shape}; it must be (d_model,) or (k, d_model)")
    rows = direction.reshape(-1, direction.shape[-1]).double()
    if not bool(rows.isfinite().all()):
        raise UsageError(f"{path}: `direction` holds NaN or infinite values; find it again")
    zero = (rows.abs().amax(dim=1) == 0).nonzero().flatten().tolist()
    if zero:
        raise UsageError(f"{path}: row {zero[0]} of `direction` is zero; leave it out")
    return rows


def _check_candidates(candidates: Tensor, d_model: int, path: Path) -> None:
    if candidates.ndim != 3 or candidates.shape[2] != d_model:
        shape = tuple(candidates.shape)
        raise UsageError(f"{path}: `candidates` has shape {shape}; it must be (positions, layers, {d_model})")


def _metadata(text: str | None, path: Path) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{path}: the metadata `{KEY}` in its header is not JSON; find it again") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: the metadata `{KEY}` in its header is not a JSON object; find it again")
    return value
