"""The rows of a directions file, read and checked without torch."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import Stamp, meant, open_regular, printable, read_exactly
from weight_edit.checkpoint.tensor.header import Header, read_header
from weight_edit.checkpoint.tensor.numbers import STORED, decode
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UsageError
from weight_edit.utils.arrays import Floats, as_float64
from weight_edit.utils.json import parse_json

KEY = "weight_edit"
TOLERANCE = 5e-3
ROUNDING = 1e-6


def read_rows(path: str | Path, *, orthonormalize: bool = False) -> DirectionRows:
    """Read directions from a file of this package, or any safetensors file with a `direction`.

    Args:
        path: the file; its `direction` has shape (d_model,) or (k, d_model), in bfloat16, float16, float32 or float64.
        orthonormalize: accept rows that are not orthonormal, and make them so (their span stays).

    Raises:
        UsageError: no such file, not safetensors, no `direction`, wrong shape or dtype, not finite, a zero
            row, or rows that are not orthonormal.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no directions file {path}; make one with `find`")
    header = _header(path)
    names = sorted(info.name for info in header.tensors)
    if "direction" not in names:
        held = ", ".join(printable(name) for name in names[:4]) or "nothing"
        raise UsageError(f"{path} has no tensor `direction` (it holds {held}); rename it, or make one with `find`")
    metadata = _metadata((header.metadata or {}).get(KEY), path)
    rows = _checked(_numbers(path, header, "direction"), path)
    # By how much the rows' products differ from 0 and 1.
    off = np.abs(rows @ rows.T - np.eye(len(rows)))
    if off.max() > TOLERANCE and not orthonormalize:
        kind = "of unit length" if off.diagonal().max() > TOLERANCE else "orthogonal"
        raise UsageError(
            f"{path}: the rows of `direction` are not {kind} (off by {off.max():.2g}); "
            "pass `orthonormalize=True` to make them orthonormal",
            option="orthonormalize",
        )
    if off.max() > ROUNDING:
        # Of rows stored in half precision, what they are off by would be left in the stream.
        rows = orthonormal_rows(rows)
    tensors = _others(path, header, rows.shape[1])
    try:
        return DirectionRows(rows.astype(np.float32), metadata, tensors)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def is_directions(path: Path) -> bool:
    """Whether a file holds directions that this package wrote, and may be overwritten.

    Raises:
        UsageError: it cannot be read at all.
    """
    with open_regular(path):
        pass
    try:
        header = _header(path)
    except UsageError:
        return False
    return KEY in (header.metadata or {}) and any(info.name == "direction" for info in header.tensors)


def folder_of(out: str | Path) -> Path:
    """The folder where a search keeps its progress: `out` with `.find` after its name."""
    out = Path(out)
    return out.with_name(f"{out.name}.find")


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a directions file says of itself; empty where it says nothing.

    Raises:
        UsageError: not safetensors, or the metadata are no JSON object.
    """
    path = Path(path)
    return _metadata((_header(path).metadata or {}).get(KEY), path)


def read_candidates(path: str | Path, d_model: int) -> NDArray[np.float32] | None:
    """The candidates in a directions file, (positions, layers, d_model); None if it has none.

    Raises:
        UsageError: not safetensors, or `candidates` of another shape or no plain floating dtype.
    """
    path = Path(path)
    header = _header(path)
    if not any(info.name == "candidates" for info in header.tensors):
        return None
    found = _numbers(path, header, "candidates")
    if found.ndim != 3 or found.shape[2] != d_model:
        raise UsageError(
            f"{path}: the tensor 'candidates' has shape {found.shape}; it must be (positions, layers, {d_model})"
        )
    return found.astype(np.float32)


def _header(path: Path) -> Header:
    try:
        # The Hub's cache keeps links; what they lead to is opened.
        with open_regular(path.resolve()) as file:
            return read_header(file, Stamp.of(file).size, path.name)
    except (UsageError, OSError) as error:
        # A run's folder has them under this name.
        instead = meant(path / "directions.safetensors") if path.is_dir() else ""
        raise UsageError(f"{path} is not a safetensors file ({error}){instead or '; make one with `find`'}") from error


def _numbers(path: Path, header: Header, name: str) -> Floats:
    info = next(info for info in header.tensors if info.name == name)
    if info.dtype not in STORED:
        raise UsageError(f"{path}: `{name}` is {info.dtype}, not a floating dtype such as {', '.join(STORED)}")
    with open_regular(path.resolve()) as file:
        file.seek(info.begin)
        raw = np.frombuffer(read_exactly(file, info.size, path.name), np.uint8)
    return as_float64(decode(raw, info.dtype).reshape(info.shape))


def _others(path: Path, header: Header, d_model: int) -> dict[str, NDArray[np.float32]]:
    """The other floating-point tensors that are d_model wide.

    All else in a foreign file is ignored.
    """
    found = {}
    for info in header.tensors:
        shaped = len(info.shape) in (1, 2) and info.shape[-1] == d_model
        if info.name in ("direction", "candidates") or info.dtype not in STORED or not shaped:
            continue
        values = _numbers(path, header, info.name)
        if not np.isfinite(values).all():
            raise UsageError(f"{path}: `{info.name}` holds NaN or infinite values; find it again")
        found[info.name] = values.astype(np.float32)
    return found


def _checked(direction: Floats, path: Path) -> Floats:
    if direction.ndim not in (1, 2) or 0 in direction.shape:
        raise UsageError(f"{path}: `direction` has shape {direction.shape}; it must be (d_model,) or (k, d_model)")
    rows = direction.reshape(-1, direction.shape[-1])
    if len(rows) > rows.shape[1]:
        raise UsageError(f"{path}: `direction` has {len(rows)} rows, more than their {rows.shape[1]} entries can span")
    if not np.isfinite(rows).all():
        raise UsageError(f"{path}: `direction` holds NaN or infinite values; find it again")
    zero = np.flatnonzero(~rows.any(axis=1))
    if len(zero):
        raise UsageError(f"{path}: row {zero[0]} of `direction` is zero; leave it out")
    return rows


def _metadata(text: str | None, path: Path) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        # What is in it goes into manifests and cards, so that nothing may be in it that these cannot hold.
        value = parse_json(text)
    except ValueError as error:
        raise UsageError(f"{path}: the metadata `{KEY}` in its header is not JSON ({error}); find it again") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: the metadata `{KEY}` in its header is not a JSON object; find it again")
    return value
