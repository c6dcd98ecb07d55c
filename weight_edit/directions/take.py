"""The verb `take`: another candidate of a find, in place of the one that it chose; no torch is needed."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.whole_file import check_free, save_whole
from weight_edit.directions.file import KEY, is_directions, read_candidates, read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.utils.json import json_safe

_OF_THE_CHOICE = ("certainty", "confirmation", "unconfirmed", "control", "facts", "separation", "loud", "missed")
"""What a find says of the candidate that it chose, and of no other."""

_ALIKE = 0.999
"""The cosine of a direction and its candidate where the one is the other's, up to rounding."""


def can_be_taken(path: Path) -> bool:
    """Whether other candidates of a directions file are directions by themselves.

    They are where the chosen direction is its candidate's vector, made one long; not where a method's directions are
    several, or are something else than what an addition adds.
    """
    try:
        _with_candidates(path)
    except UsageError:
        return False
    return True


def take_candidate(
    directions: str | Path, out: str | Path, *, layer: int, position: int | None = None, overwrite: bool = False
) -> DirectionRows:
    """Write another candidate of a directions file as a directions file of its own.

    It has the direction and what an addition adds. What was measured of the chosen one alone, and tensors that belong
    to its place, are left out: edits that need them refuse it.

    Args:
        directions: the file that `find` wrote, or that a run has.
        out: the file to write.
        layer: of the candidate, as in the file's `scores`.
        position: likewise; it may be left out where the find looked at one position alone.
        overwrite: replace an earlier directions file.

    Returns:
        What `out` holds: `bake` takes it as it takes the file.

    Raises:
        UsageError: the file has no candidates, they are no directions by themselves, it has none there, or `out` is
            `directions` or cannot be written.
    """
    path, out = Path(directions), Path(out)
    found, candidates = _with_candidates(path)
    vector = candidates[_place(path, found, candidates.shape[1], layer, position)]
    position = position if position is not None else found.metadata["positions"][0]
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not length or not np.isfinite(length):
        raise UsageError(
            f"{printable(str(path))}: the candidate at layer {layer}, position {position} is no direction",
            option=("layer", "position"),
        )
    if out.exists() and out.samefile(path):
        raise UsageError(f"{printable(str(path))} would lose its other candidates; choose another `out`", option="out")
    check_free(out, overwrite, is_directions)
    own = f"layer {found.metadata['layer']}, position {found.metadata['position']}"
    said = f"taken by hand among the candidates: the find chose {own}"
    scores = found.metadata.get("scores")
    listed = [row for row in scores if isinstance(row, dict)] if isinstance(scores, list) else []
    rows = [row for row in listed if (row.get("layer"), row.get("position")) == (layer, position)]
    rejected = rows[0].get("rejected") if rows else None
    kept = {name: value for name, value in found.metadata.items() if name not in _OF_THE_CHOICE}
    kept |= {"layer": layer, "position": position, "missed": rejected, "best_effort": rejected is not None}
    kept["warnings"] = [f"{said}{f'; it misses a bound: {rejected}' if rejected else ''}"]
    text = json.dumps(json_safe(kept), sort_keys=True, allow_nan=False)
    tensors = {"direction": (vector / length)[None].astype(np.float32), "vector": vector}
    save_whole(out, to_bytes(tensors, metadata={KEY: text}))
    return read_rows(out)


def _with_candidates(path: Path) -> tuple[DirectionRows, NDArray[np.float32]]:
    """The directions of a file, and its candidates (positions, layers, d_model).

    Raises:
        UsageError: it has none, or they are no directions by themselves.
    """
    found = read_rows(path)
    candidates = read_candidates(path, found.rows.shape[1])
    name = printable(str(path))
    if candidates is None:
        raise UsageError(f"{name} has no candidates beside its direction; only a file that `find` wrote has them")
    try:
        places = list(found.metadata["positions"])
        vector = candidates[places.index(found.metadata["position"])][found.metadata["layer"]]
    except (KeyError, ValueError, IndexError, TypeError):
        vector = None
    length = 0.0 if vector is None else float(np.linalg.norm(vector))
    if len(found.rows) != 1 or not length or abs(float(found.rows[0] @ vector)) < _ALIKE * length:
        raise UsageError(f"{name}: its candidates are no directions by themselves, so that none of them can be taken")
    return found, candidates


def _place(path: Path, found: DirectionRows, layers: int, layer: int, position: int | None) -> tuple[int, int]:
    """The candidate's place in the table of candidates.

    Raises:
        UsageError: there is none, or several are meant.
    """
    positions: Sequence[int | None] = found.metadata["positions"]
    name = printable(str(path))
    if position is None and len(positions) > 1:
        raise UsageError(
            f"{name} has candidates at several positions; say which, of {_listed(positions)}", option="position"
        )
    if not 0 <= layer < layers:
        raise UsageError(
            f"{name} has no candidate at layer {layer}: there are layers 0 to {layers - 1}", option="layer"
        )
    if position is not None and position not in positions:
        raise UsageError(
            f"{name} has no candidate at layer {layer}, position {position}: there are positions {_listed(positions)}",
            option="position",
        )
    return (0 if position is None else positions.index(position)), layer


def _listed(positions: Sequence[int | None]) -> str:
    return ", ".join("all tokens (leave it out)" if each is None else str(each) for each in positions)
