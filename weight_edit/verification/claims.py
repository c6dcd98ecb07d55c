"""The claims in an output's manifest, checked against the repeated edit and the files."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from weight_edit.baking.prepare import PreparedEdit
from weight_edit.baking.tensors import BALANCED
from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.integrity.integrity import IntegrityReport
from weight_edit.checkpoint.tensor.edited import RoundingLoss
from weight_edit.edits.direction_facts import KEPT
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.plan.step import EditStep
from weight_edit.utils.json import json_safe
from weight_edit.utils.renamed import present_values
from weight_edit.verification.tolerances import STRICT

_FREE = ("weight_edit", "source", "card", "files", "measurements", "failed", "rounding", "pack")
"""Entries not determined by the edit: authorship, the base's origin, other checks' entries."""

_MEASURED = ("baseline", "edited", "verification")
"""The measurements that a manifest may record."""

_FROM_FILES = ("complete", "storage_dtype", "left_in_weights", "left_in_weights_at")
"""Figures of a recorded verification that depend on the files alone: reproducible ones."""

_OF_TENSORS = ("compared", "different", "rounding", "rounding_at")
"""Figures of the edited tensors that depend on the files alone.

The number of bit-identical entries is not among them: it depends on the processor.
"""

_SAME = 1e-6
"""The relative tolerance between two processors' sums of the same numbers."""


def manifest_problems(manifest: Mapping[str, Any] | None, baking: PreparedEdit) -> Iterator[str]:
    """One line for each manifest entry that the repeated edit does not confirm."""
    if manifest is None:
        return
    wanted = json.loads(json.dumps(baking.summary()))
    yield from _source_problems(manifest.get("source"), wanted["source"])
    manifest = _in_present_words(manifest)
    said = manifest.get("edit")
    for key in sorted({*(said if isinstance(said, Mapping) else {}), *wanted["edit"]}):
        yield from _compared(f"edit.{key}", said, wanted["edit"], key)
    for key in wanted:
        if key != "edit" and key not in _FREE:
            yield from _compared(key, manifest, wanted, key)
    # Whatever else stands there may be read by somebody: a card shows the notes of an adapter.
    for key in sorted(manifest.keys() - wanted.keys() - set(_FREE)):
        yield _differs(key, manifest[key], None)


def rounding_problems(
    manifest: Mapping[str, Any] | None, baking: PreparedEdit, report: IntegrityReport
) -> Iterator[str]:
    """One line for each entry on the rounding of a tensor that the files do not show."""
    if manifest is None:
        return
    said = manifest.get("rounding")
    if said is None and baking.tensors.lossy:
        order = ", which rounded in another order" if baking.options.rounding == BALANCED else ""
        yield f"manifest: it records no rounding, as those of earlier versions do not{order}; bake again"
        return
    found = {
        check.tensor: RoundingLoss(check.rounding, check.left or 0.0, check.kept, check.rescaled)
        for check in report.edits
        if check.rounding is not None and check.kept is not None and check.rescaled is not None
    }
    wanted = baking.rounding(found)
    said = said if isinstance(said, Mapping) else {}
    for name in sorted({*said, *wanted}):
        claim, fact = said.get(name), wanted.get(name)
        if not isinstance(claim, Mapping) or fact is None or claim.keys() != fact.keys():
            yield _differs(f"rounding of {printable(name)!r}", claim, fact)
            continue
        for key, value in fact.items():
            if not _same(claim[key], value):
                yield (
                    f"manifest: its rounding of {printable(name)!r} has {key} {_brief(claim[key])}, where "
                    f"{_brief(value)} is found"
                )


def _in_present_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest, or a verification in it, as it would be written today: earlier versions had other words."""
    edit, mtp = said.get("edit"), said.get("mtp")
    present = dict(said)
    if isinstance(edit, Mapping):
        present["edit"] = present_values(edit)
    if isinstance(mtp, Mapping) and "mode" in mtp:
        present["mtp"] = {**mtp, "mode": present_values({"mtp": mtp["mode"]})["mtp"]}
    return present


def _source_problems(source: Any, wanted: Mapping[str, Any]) -> Iterator[str]:
    """One line for each wrong entry of `source`; a local folder may have been renamed."""
    said = source if isinstance(source, Mapping) else {}
    yield from _compared("source.architecture", said, wanted, "architecture")
    for key in sorted(said.keys() - wanted.keys()):
        yield _differs(f"source.{key}", said[key], None)
    if said.get("on_hub") and wanted["on_hub"]:
        yield from _compared("source.model", said, wanted, "model")


def _compared(name: str, said: Any, wanted: Mapping[str, Any], key: str) -> Iterator[str]:
    claim = said.get(key) if isinstance(said, Mapping) else None
    if claim != wanted.get(key):
        yield _differs(name, claim, wanted.get(key))


def _differs(name: str, claim: Any, wanted: Any) -> str:
    return f"manifest: its {name} is not that of the edit, made again ({_brief(claim)}, not {_brief(wanted)})"


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return printable(text if len(text) <= 80 else f"{text[:77]}...")


def recorded(manifest: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The keys of the measurements in a manifest: "baseline", "edited", "verification"."""
    measured = (manifest or {}).get("measurements")
    return tuple(key for key, value in measured.items() if value) if isinstance(measured, Mapping) else ()


def measurement_problems(manifest: Mapping[str, Any] | None, found: Mapping[str, Any]) -> Iterator[str]:
    """One line for each figure of a recorded verification that this verification contradicts.

    Rates and divergences of an evaluation are not measured here, so that nothing is said of them.

    Args:
        found: this verification, as `Verification.to_dict` has it.
    """
    measured = (manifest or {}).get("measurements")
    for key in sorted(measured.keys() - set(_MEASURED)) if isinstance(measured, Mapping) else ():
        yield f"manifest: its measurements.{printable(key)} is nothing that is measured"
    said = measured.get("verification") if isinstance(measured, Mapping) else None
    if said is None:
        return
    if not isinstance(said, Mapping):
        yield "manifest: its measurements.verification is no verification"
        return
    now = json.loads(json.dumps(json_safe(found)))
    yield from _figure_problems("", _FROM_FILES, said, now)
    yield from _figure_problems("edited_tensors.", _OF_TENSORS, said.get("edited_tensors"), now["edited_tensors"])
    if _in_present_words(said).get("edit") != now["edit"]:
        yield "manifest: the verification that it records is one of another edit"
    passed = said.get("passed") is True and said.get("integrity") is True and not said.get("problems")
    if not passed and not (manifest or {}).get("failed"):
        yield "manifest: the verification that it records did not pass, and it is not marked as failed"
    for name, dtype in (("leak", "leak"), ("logit_difference", "hook_against_weights")):
        mine = now["by_dtype"].get("float32")
        if mine is None or said.get(name) is None:
            continue
        figure = mine[dtype] if name == "leak" else mine[dtype]["largest"]
        if figure is None:
            # Not a number now, which is a problem of its own.
            continue
        # Of other prompts, on another machine: within a tenth of what is found here it may be.
        least = STRICT.leak if name == "leak" else STRICT.logits
        if type(said[name]) not in (int, float) or (figure > least and not said[name] >= figure / 10):
            yield (
                f"manifest: its measurements.verification.{name} is {_brief(said[name])}, where {figure:.1e} is found "
                "now"
            )


def _figure_problems(group: str, keys: tuple[str, ...], said: Any, now: Mapping[str, Any]) -> Iterator[str]:
    for key in keys:
        claim = said.get(key) if isinstance(said, Mapping) else None
        if now[key] is not None and not _same(claim, now[key]):
            yield (
                f"manifest: its measurements.verification.{group}{key} is not what the files show "
                f"({_brief(claim)}, not {_brief(now[key])})"
            )


def _same(said: Any, now: Any) -> bool:
    """Whether two figures are equal up to the order of summation."""
    if any(not isinstance(value, int | float) or isinstance(value, bool) for value in (said, now)):
        return bool(said == now)
    return math.isclose(said, now, rel_tol=_SAME, abs_tol=1e-12)


def directions_problems(
    manifest: Mapping[str, Any] | None, given: DirectionRows | None, steps: tuple[EditStep, ...]
) -> Iterator[str]:
    """One line for each step whose directions or their facts differ from the given ones."""
    if manifest is None or given is None:
        return
    for number, step in enumerate(steps, 1):
        known = step.directions
        if known.rows.shape != given.rows.shape or not np.allclose(known.rows, given.rows, atol=1e-6):
            yield f"directions: step {number} of the edit ({step.described}) is along others than those given"
            continue
        for name, values in known.tensors.items():
            other = given.tensors.get(name)
            if other is None or np.shape(other) != np.shape(values) or not np.allclose(other, values, atol=1e-6):
                yield f"directions: step {number} of the edit ({step.described}) has another '{name}' than the file"
        for name in KEPT:
            # Manifests of version 0.1.0 name no papers, and say nothing wrong by that.
            if name == "papers" and name not in known.metadata:
                continue
            # Directions from Python alone, of which nothing is recorded, are not held against what is.
            if given.metadata and known.metadata.get(name) != json.loads(json.dumps(given.metadata.get(name))):
                yield f"directions: step {number} of the edit ({step.described}) says another '{name}' than the file"
