"""Another candidate of a find, taken in place of the one that it chose; no torch is needed."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save as to_bytes

from weight_edit.checkpoint.whole_file import save_whole
from weight_edit.directions.file import KEY, read_candidates, read_metadata, read_rows
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
        found = read_rows(path)
        candidates = read_candidates(path, found.rows.shape[1])
        places = list(found.metadata["positions"])
        chosen = None if candidates is None else candidates[places.index(found.metadata["position"])]
        vector = None if chosen is None else chosen[found.metadata["layer"]]
    except (UsageError, KeyError, ValueError, IndexError, TypeError):
        return False
    if vector is None or len(found.rows) != 1 or not np.linalg.norm(vector):
        return False
    return abs(float(found.rows[0] @ vector)) >= _ALIKE * float(np.linalg.norm(vector))


def take_candidate(path: Path, layer: int, position: int | None, out: Path) -> None:
    """Write another candidate of a directions file as a directions file of its own.

    It has the direction and what an addition adds. What was measured of the chosen one alone, and tensors that belong
    to its place, are left out: edits that need them refuse it.

    Args:
        layer, position: of the candidate, as in the file's `scores`.

    Raises:
        UsageError: its candidates are no directions by themselves, it has none there, or `out` cannot be written.
    """
    if not can_be_taken(path):
        raise UsageError(f"{path}: its candidates are no directions by themselves, so that none of them can be taken")
    metadata = read_metadata(path)
    candidates = read_candidates(path, read_rows(path).rows.shape[1])
    assert candidates is not None
    positions = metadata["positions"]
    if position not in positions or not 0 <= layer < candidates.shape[1]:
        raise UsageError(f"{path} has no candidate at layer {layer}, position {position}")
    vector = candidates[positions.index(position), layer]
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not length or not np.isfinite(length):
        raise UsageError(f"{path}: the candidate at layer {layer}, position {position} is no direction")
    own = f"layer {metadata['layer']}, position {metadata['position']}"
    said = f"taken by hand among the candidates: the find chose {own}"
    scores = metadata.get("scores")
    listed = [row for row in scores if isinstance(row, dict)] if isinstance(scores, list) else []
    rows = [row for row in listed if (row.get("layer"), row.get("position")) == (layer, position)]
    rejected = rows[0].get("rejected") if rows else None
    kept = {name: value for name, value in metadata.items() if name not in _OF_THE_CHOICE}
    kept |= {"layer": layer, "position": position, "missed": rejected, "best_effort": rejected is not None}
    kept["warnings"] = [f"{said}{f'; it misses a bound: {rejected}' if rejected else ''}"]
    text = json.dumps(json_safe(kept), sort_keys=True, allow_nan=False)
    tensors = {"direction": (vector / length)[None].astype(np.float32), "vector": vector}
    save_whole(out, to_bytes(tensors, metadata={KEY: text}))
