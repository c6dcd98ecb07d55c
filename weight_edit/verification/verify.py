"""Verify an edited checkpoint against its base. It fails closed: what could not be measured has not passed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weight_edit.baking import rows_of
from weight_edit.checkpoint.files import shown
from weight_edit.checkpoint.integrity import IntegrityReport, check_integrity
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.directions.file import DirectionRows
from weight_edit.edits import LowRankMap
from weight_edit.edits.changes import removed
from weight_edit.errors import UsageError, VerificationError
from weight_edit.preparing import Baking, EditOptions, prepare
from weight_edit.publish.finishing import README, origin_of
from weight_edit.runtime.sources import resolve
from weight_edit.steps import EditStep
from weight_edit.verification.card import card_problems
from weight_edit.verification.tolerances import TOLERANCES
from weight_edit.verification.weights import WeightCheck, weight_check

if TYPE_CHECKING:
    from weight_edit.directions.artifact import Directions
    from weight_edit.prompts import PromptSet
    from weight_edit.verification.models import Precision

_TORCH = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}

DEFAULT_PROMPTS = "organism:answered:test"


@dataclass(frozen=True)
class Verification:
    """Everything that was checked.

    Attributes:
        integrity: bytes, names, digests, and the edited tensors against the formula.
        weights: the figures of the edited tensors.
        precisions: the model checks, by dtype: float32, and the storage dtype; empty when only the files were checked.
        storage: the storage dtype of the edited tensors.
        complete: whether the edit claims to leave nothing; if not, the leak is reported but not judged.
        prompts: number of prompts that the models ran on.
        problems: one line per failed check; empty when all passed.
    """

    integrity: IntegrityReport
    weights: WeightCheck
    precisions: Mapping[str, "Precision"]
    storage: str
    complete: bool
    prompts: int
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.problems

    @property
    def weights_only(self) -> bool:
        """Whether no model was run."""
        return not self.precisions

    @property
    def leak(self) -> float | None:
        """In float32; None when no model was run."""
        return None if self.weights_only else self.precisions["float32"].leak.worst

    @property
    def logit_difference(self) -> float | None:
        """Largest, hooks against weights, in float32; None when no model was run."""
        return None if self.weights_only else self.precisions["float32"].faithful.largest

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "passed": self.passed,
            "weights_only": self.weights_only,
            "integrity": self.integrity.ok,
            "leak": self.leak,
            "logit_difference": self.logit_difference,
            "complete": self.complete,
            "storage_dtype": self.storage,
            "prompts": self.prompts,
            "problems": list(self.problems),
            "left_in_weights": self.weights.left,
            "left_in_weights_at": self.weights.left_where,
            "edited_tensors": {
                "compared": self.weights.compared,
                "bit_for_bit": self.weights.exact,
                "entries_rounded_otherwise": self.weights.inexact,
                "different": list(self.weights.different),
                "rounding": self.weights.rounding,
                "rounding_at": self.weights.rounding_where or None,
            },
            "by_dtype": {name: precision.to_dict() for name, precision in self.precisions.items()},
            "integrity_report": self.integrity.to_dict(),
        }


def verify(
    base: str | Path,
    edited: str | Path,
    *,
    directions: "Directions | DirectionRows | str | Path | None" = None,
    weights_only: bool = False,
    prompts: "PromptSet | None" = None,
    n_prompts: int = 16,
    system: str | None = None,
    template: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Verification:
    """Check integrity, completeness and faithfulness of an edited checkpoint.

    Args:
        base: the model that was edited: a folder, a Hub id or "organism".
        edited: the output folder of `bake`.
        directions: needed where `edited` has no `weight_edit.json`; otherwise checked against it.
        weights_only: check the files alone and load no model, for models that do not fit into memory.
        prompts: what the models run on; the embedded model's ordinary test prompts when None.
        n_prompts: how many of them.
        system, template: see `ChatFormat`.

    Returns:
        a `Verification`; look at `passed` and `problems`.

    Raises:
        UsageError: unreadable input, or no directions to check against.
        UnsupportedError: an architecture that is not understood.
        VerificationError: `edited` cannot even be opened.
    """
    folder = Path(edited)
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; give the output of bake")
    manifest = read_manifest(folder)
    steps, options = _what_was_done(manifest, directions, folder)
    source = resolve(base, revision=revision or _revision(manifest, base, folder), token=token)
    baking = prepare(source, steps, options, trust_remote_code=trust_remote_code)
    written = set() if manifest is None else {README, baking.base_card or README}
    report = check_integrity(
        baking.checkpoint,
        folder,
        edits=baking.expected,
        added=baking.added,
        written_files=written,
        changed_config=baking.changed_config,
    )
    try:
        Checkpoint.open(folder)
    except UsageError as error:
        raise VerificationError(f"{folder} cannot be read as a checkpoint: {error}") from error
    weights = weight_check(report)
    storage = _storage(baking)
    precisions: dict[str, Precision] = {}
    n_run = 0
    problems = [
        *report.problems,
        *(f"marked as failed: {reason}" for reason in (manifest or {}).get("failed") or []),
        *_base_card_problems(baking, folder, manifest),
        *card_problems(folder, manifest, baking.checkpoint),
        *_directions_problems(manifest, directions, steps),
        *_weight_problems(report, storage, baking),
    ]
    if not weights_only:
        from weight_edit.prompts import load_prompts
        from weight_edit.verification.models import precision_problems, run_models

        chosen = (prompts or load_prompts(DEFAULT_PROMPTS)).at_most(n_prompts)
        n_run = len(chosen)
        for dtype in dict.fromkeys(("float32", "float32" if storage == "float64" else storage)):
            precisions[dtype] = run_models(baking, folder, chosen, dtype, system, template, device, trust_remote_code)
            problems += precision_problems(precisions[dtype], storage, baking.plan.complete)
    return Verification(
        report,
        weights,
        precisions,
        storage,
        baking.plan.complete,
        n_run,
        tuple(dict.fromkeys(problems)),
    )


def _what_was_done(
    manifest: Mapping[str, Any] | None, directions: "Directions | DirectionRows | str | Path | None", folder: Path
) -> tuple[list[EditStep], EditOptions]:
    if manifest is None:
        if directions is None:
            raise UsageError(f"{folder} has no weight_edit.json; say with --directions what it was edited with")
        return [EditStep(rows_of(directions))], EditOptions()
    try:
        options = EditOptions.from_dict(manifest["edit"])
        steps = [EditStep.from_dict(entry) for entry in manifest["edit"]["steps"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder}/weight_edit.json does not say how the model was edited; bake again") from error
    return steps, options


def _revision(manifest: Mapping[str, Any] | None, base: str | Path, folder: Path) -> str | None:
    """The revision that was edited, when the base is named as it was then."""
    if manifest is None:
        return None
    origin = origin_of(manifest, folder)
    return origin.revision if origin.model == str(base) else None


def _storage(baking: Baking) -> str:
    """The dtype of the edited tensors; of several, the coarsest. What a quantised format holds, bfloat16 holds too."""
    stored = {_TORCH.get(edit.target.parts[edit.target.name][0], "bfloat16") for edit in baking.streams.edits}
    # An addition may edit none, and create biases alone.
    stored |= {_TORCH.get(added.dtype, "bfloat16") for added in baking.added.values()}
    return max(stored, key=lambda dtype: (TOLERANCES[dtype].left, dtype))


def _base_card_problems(baking: Baking, folder: Path, manifest: Mapping[str, Any] | None) -> list[str]:
    """The base's card moves to another name, where the comparison of equal names does not see it."""
    if manifest is None or baking.base_card is None:
        return []
    kept = folder / baking.base_card
    if kept.is_file() and kept.read_bytes() == bytes(baking.checkpoint.read_file(README)):
        return []
    return [f"{baking.base_card}: is not the base's {README}"]


def _directions_problems(
    manifest: Mapping[str, Any] | None,
    directions: "Directions | DirectionRows | str | Path | None",
    steps: Sequence[EditStep],
) -> list[str]:
    if manifest is None or directions is None:
        return []
    rows = rows_of(directions).rows
    recorded = [step.directions.rows for step in steps]
    if any(known.shape == rows.shape and np.allclose(known, rows, atol=1e-6) for known in recorded):
        return []
    return ["directions: the file given differs from the directions in weight_edit.json"]


def _weight_problems(report: IntegrityReport, storage: str, baking: Baking) -> list[str]:
    """What a projection must not leave in the weights: more than storing puts back."""
    full = {
        name
        for stream in baking.streams.edits
        if isinstance(stream.map, LowRankMap) and len(removed(stream.map)) == stream.map.rank
        for name in stream.target.parts
    }
    problems = []
    for edit in report.edits:
        # Rounding errors lie along V no more than along any other direction.
        allowed = max(TOLERANCES[storage].left, 2 * (edit.rounding or 0.0))
        if edit.tensor in full and edit.left is not None and not edit.left < allowed:
            problems.append(f"{shown(edit.tensor)}: {edit.left:.1e} of V^T W is left, more than {allowed:.0e}")
    return problems
