"""Is the model card what the manifest gives, and what in the manifest is only recorded?"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import open_regular, shown
from weight_edit.checkpoint.manifest import MANIFEST
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.errors import UsageError
from weight_edit.publish.card import model_card
from weight_edit.publish.finishing import README
from weight_edit.publish.inherited import kept_metadata

_MOST = 4_000_000

_CERTAIN = ("integrity", "complete", "storage_dtype")
"""Findings of a verification that are the same on every machine."""

_CLOSE = 1000.0
"""Figures of the same models on the same prompts differ by less than this factor, on whatever machine."""

_SMALLEST = 1e-12


def card_problems(folder: Path, manifest: Mapping[str, Any] | None, base: Checkpoint) -> list[str]:
    """What is wrong with an output's card, one line each: it is missing, or says something else than the manifest, or
    the manifest says of the base's card what that does not say.

    Args:
        folder: the output.
        manifest: its own; None where it has none, and then its card is nobody's.
        base: what it was edited from.
    """
    if manifest is None:
        return []
    if not isinstance(manifest.get("card"), Mapping):
        return [f"{MANIFEST}: has no entry 'card', so that {README} cannot be checked; bake again"]
    try:
        wanted = model_card(manifest).encode()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        return [f"{MANIFEST}: gives no model card ({type(error).__name__}: {shown(str(error))})"]
    problems = []
    if manifest["card"].get("metadata") != kept_metadata(_base_card(base)):
        problems.append(f"{MANIFEST}: the licence and other metadata in 'card' are not those of the base's card")
    try:
        with open_regular(folder / README) as file:
            # Unbuffered reads may be short, but of a regular file they are not.
            there = file.read(_MOST)
    except UsageError:
        return [*problems, f"{README}: the model card is missing"]
    if there != wanted:
        problems.append(f"{README}: is not the model card that {MANIFEST} gives")
    return problems


def record_problems(manifest: Mapping[str, Any] | None, checked: Mapping[str, Any]) -> list[str]:
    """Where a verification that the manifest records says otherwise than the one of now.

    Args:
        checked: the one of now, as `Verification.to_dict` gives it.
    """
    recorded = _recorded(manifest).get("verification")
    if not recorded:
        return []
    if not isinstance(recorded, Mapping):
        return [f"{MANIFEST}: the recorded verification is malformed"]
    problems = [
        f"{MANIFEST}: the recorded verification says {key.replace('_', ' ')} {shown(str(recorded[key]))!r}, "
        f"and it is {checked[key]!r}"
        for key in _CERTAIN
        if key in recorded and key in checked and recorded[key] != checked[key]
    ]
    if recorded.get("prompts") != checked.get("prompts"):
        # Others were run, and other figures came of it.
        return problems
    for key in ("leak", "logit_difference"):
        said, found = recorded.get(key), checked.get(key)
        if said is None or found is None:
            continue
        if not isinstance(said, int | float) or not math.isfinite(said):
            problems.append(f"{MANIFEST}: the recorded verification has no number as its {key.replace('_', ' ')}")
        elif max(float(said), _SMALLEST) * _CLOSE < found:
            what = key.replace("_", " ")
            problems.append(f"{MANIFEST}: the recorded verification says {what} {said:.1e}, and it is {found:.1e}")
    return problems


def only_recorded(manifest: Mapping[str, Any] | None, checked: Mapping[str, Any]) -> tuple[str, ...]:
    """What the manifest says was measured and this verification did not measure: it is recorded, and not checked."""
    measured = _recorded(manifest)
    found = []
    for key, what in (("baseline", "the base's answers"), ("edited", "the edited model's answers")):
        entry = measured.get(key)
        sets = entry.get("sets") if isinstance(entry, Mapping) else None
        if isinstance(sets, Mapping) and sets:
            found.append(f"{what} ({', '.join(shown(str(name)) for name in sets)})")
    verified = measured.get("verification")
    if isinstance(verified, Mapping) and checked.get("weights_only") and verified.get("leak") is not None:
        found.append("the residual stream, and hooks against weights")
    return tuple(found)


def _recorded(manifest: Mapping[str, Any] | None) -> Mapping[str, Any]:
    found = (manifest or {}).get("measurements")
    return found if isinstance(found, Mapping) else {}


def _base_card(base: Checkpoint) -> str | None:
    return bytes(base.read_file(README)).decode("utf-8", "replace") if README in base.other_files else None
