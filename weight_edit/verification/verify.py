"""The verification of an edited checkpoint against its base.

It fails closed: a check that could not be made has not passed.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.baking.bake import rows_of
from weight_edit.baking.card.card_and_manifest import README, origin_of
from weight_edit.baking.prepare import EditOptions, PreparedEdit, prepare
from weight_edit.checkpoint.files import printable, read_whole
from weight_edit.checkpoint.integrity.integrity import IntegrityReport, check_integrity
from weight_edit.checkpoint.manifest import check_folder, check_order, read_manifest, without_manifest
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import TORCH_NAMES
from weight_edit.edits.changes import removed
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.errors import UsageError, VerificationError
from weight_edit.hub.source import Named, resolve
from weight_edit.plan.step import EditStep
from weight_edit.tables.shown import Shown
from weight_edit.utils.renamed import renamed_arguments
from weight_edit.verification.card_check import card_problems, foreign_version
from weight_edit.verification.claims import (
    directions_problems,
    manifest_problems,
    measurement_problems,
    recorded,
    rounding_problems,
)
from weight_edit.verification.weight_checks import WeightCheck, weight_check

if TYPE_CHECKING:
    from weight_edit.directions.directions import Directions
    from weight_edit.prompts.sets import PromptSet
    from weight_edit.verification.model_checks import Precision
    from weight_edit.verification.tolerances import Noise

_COARSENESS = ("float64", "float32", "float16", "bfloat16")

STRICT_LEFT = 1e-5
"""The bound on |V^T W'| / |V^T W| for the exact result, in writers that are fully ablated."""

UNDONE = 0.1
"""The ratio |V^T W'| / |V^T W| of the stored result from which the edit counts as undone."""

DEFAULT_PROMPTS = "organism:answered:test"


@dataclass(frozen=True, kw_only=True)
class Verification(Shown):
    """The result of all checks.

    Attributes:
        steps: the edit that was checked, a line for each step: kind, strength, layers.
        embeddings: what it does to tied embeddings.
        integrity: bytes, names, digests, and the edited tensors against the formula.
        weights: the figures of the edited tensors.
        precisions: the model checks, by dtype: float32, and the storage dtype; empty when only the files were checked.
        noise: what the storage dtype does to the base by itself on the same prompts, by which it is judged; None where
            it is float32 or no model was run.
        recorded: what the manifest says was measured on this checkpoint; it is not measured again here, but for the
            figures of the verification.
        storage: the storage dtype of the edited tensors.
        complete: whether the edit claims to leave nothing; if not, the leak is reported but not judged.
        prompts: number of prompts that the models ran on.
        problems: one line per failed check; empty when all passed.
    """

    steps: tuple[str, ...]
    embeddings: str
    integrity: IntegrityReport
    weights: WeightCheck
    precisions: Mapping[str, "Precision"]
    noise: "Noise | None"
    recorded: tuple[str, ...]
    storage: str
    complete: bool
    prompts: int
    problems: tuple[str, ...]

    def __repr__(self) -> str:
        if self.problems:
            return f"Verification({len(self.problems)} problems, the first: {self.problems[0]})"
        if self.weights_only:
            return "Verification(passed, weights only)"
        if self.complete:
            return f"Verification(passed, leak {self.leak:.1e})"
        return f"Verification(passed, partial by intention: leak {self.leak:.1e}, not judged)"

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
        """The largest leak in float32; None if no model was run."""
        return None if self.weights_only else self.precisions["float32"].leak.worst

    @property
    def logit_difference(self) -> float | None:
        """The largest logit difference of hooks and weights in float32; None if no model was run."""
        return None if self.weights_only else self.precisions["float32"].faithful.largest

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "passed": self.passed,
            "weights_only": self.weights_only,
            "edit": {"steps": list(self.steps), "embeddings": self.embeddings},
            "integrity": self.integrity.ok,
            "leak": self.leak,
            "logit_difference": self.logit_difference,
            "complete": self.complete,
            "storage_dtype": self.storage,
            "prompts": self.prompts,
            "problems": list(self.problems),
            "left_in_weights": self.weights.left,
            "left_in_weights_at": self.weights.left_where or None,
            "left_in_weights_before_rounding": self.weights.left_exact,
            "edited_tensors": {
                "compared": self.weights.compared,
                "bit_for_bit": self.weights.exact,
                "entries_rounded_otherwise": self.weights.inexact,
                "different": list(self.weights.different),
                "unchanged": self.weights.unchanged,
                "rounding": self.weights.rounding,
                "rounding_at": self.weights.rounding_where or None,
            },
            "by_dtype": {name: precision.to_dict() for name, precision in self.precisions.items()},
            "noise": None if self.noise is None else self.noise.to_dict(),
            "recorded_not_measured": [key for key in self.recorded if key != "verification" or self.weights_only],
            "integrity_report": self.integrity.to_dict(),
        }


@renamed_arguments(n_prompts="limit")
def verify(
    base: Named,
    edited: "str | os.PathLike[str]",
    *,
    directions: "Directions | DirectionRows | str | Path | None" = None,
    weights_only: bool = False,
    prompts: "PromptSet | str | Path | None" = None,
    limit: int = 16,
    system: str | None = None,
    template: str | None = None,
    template_args: Mapping[str, Any] | None = None,
    revision: str | None = None,
    token: str | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
    offload: bool = False,
) -> Verification:
    """Check integrity, completeness and faithfulness of an edited checkpoint.

    Args:
        base: the model that was edited: a folder, a Hub id, "organism" or a loaded model.
        edited: the output folder of `bake`, or what that returned.
        directions: needed where `edited` has no `weight_edit.json`; otherwise checked against it.
        weights_only: check the files alone and load no model, for models that do not fit into memory.
        prompts: what the models run on, a set or what `load_prompts` takes; the embedded model's ordinary test prompts
            when None.
        limit: at most so many of them.
        system, template, template_args: see `ChatFormat`.
        offload: run the models with their weights on disk, see `load`.

    Returns:
        a `Verification`; look at `passed` and `problems`.

    Raises:
        UsageError: unreadable input, or no directions to check against.
        UnsupportedError: an architecture that is not understood.
        VerificationError: `edited` cannot even be opened.
    """
    folder = Path(edited)
    check_order(base, edited, manifest_needed=directions is None)
    check_folder(folder)
    manifest = read_manifest(folder)
    steps, options = _what_was_done(manifest, directions, folder)
    commit = None if manifest is None else origin_of(manifest, folder).revision_of(base)
    source = resolve(base, revision=revision or commit, token=token)
    tokens = None
    if not weights_only:
        from weight_edit.prompts.load import load_prompts
        from weight_edit.runtime.loading import chat_format, check_source
        from weight_edit.verification.model_checks import Tokens

        # Before anything that takes long: prompts that are not there, a model that cannot be run, and one without a
        # chat template, which needs --template, are not found out at the end.
        chosen = load_prompts(prompts or DEFAULT_PROMPTS).at_most(limit)
        check_source(source, device=device, trust_remote_code=trust_remote_code)
        form = chat_format(
            source,
            system=system,
            template=template,
            template_args=template_args,
            trust_remote_code=trust_remote_code,
        )
        # A tokenizer can be as large as several blocks, and is not kept.
        tokens = Tokens.of(form, chosen.prompts)
        del form
    baking = prepare(source, steps, options, trust_remote_code=trust_remote_code)
    written = set() if manifest is None else {README, baking.base_card or README}
    written |= baking.tensors.files.keys()
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
    precisions: Mapping[str, Precision] = {}
    noise: Noise | None = None
    n_run = 0
    given = None if directions is None else rows_of(directions)
    problems = [
        *report.problems,
        *(f"marked as failed: {reason}" for reason in (manifest or {}).get("failed") or []),
        *_base_card_problems(baking, folder, manifest),
        *_file_problems(baking.tensors.files, folder),
        *card_problems(folder, manifest, baking.checkpoint),
        *directions_problems(manifest, given, steps),
        *manifest_problems(manifest, baking),
        *rounding_problems(manifest, baking, report),
        *_weight_problems(report, weights, baking),
    ]
    if tokens is not None:
        from weight_edit.verification.model_checks import precision_problems, run_models

        n_run = len(tokens.sequences)
        checks = run_models(
            baking,
            folder=folder,
            tokens=tokens,
            storage=storage,
            rounding=weights.rounding,
            left=None if weights.rounding is None else weights.left,
            device=device,
            trust_remote_code=trust_remote_code,
            offload=offload,
        )
        precisions, noise = checks.precisions, checks.noise
        # Where the storage dtype alone overflows there is no noise to judge by, and nothing else to say.
        overflows = [precision.overflow for precision in precisions.values() if precision.overflow is not None]
        alone = bool(overflows) and not math.isnan(precisions["float32"].leak.worst)
        for precision in precisions.values():
            problems += overflows if alone else precision_problems(precision, baking.plan.complete)
    unconfirmed = Verification(
        steps=tuple(step.described for step in steps),
        embeddings=options.embeddings,
        integrity=report,
        weights=weights,
        precisions=precisions,
        noise=noise,
        recorded=(*recorded(manifest), *_foreign_card(manifest)),
        storage=storage,
        complete=baking.plan.complete,
        prompts=n_run,
        problems=tuple(problems),
    )
    problems += measurement_problems(manifest, unconfirmed.to_dict())
    return replace(unconfirmed, problems=tuple(dict.fromkeys(problems)))


def _foreign_card(manifest: Mapping[str, Any] | None) -> list[str]:
    """What is said of a card that another version wrote, and that nothing here can give again."""
    version = foreign_version(manifest)
    return [] if version is None else [f"the card's text (of version {version})"]


def _what_was_done(
    manifest: Mapping[str, Any] | None, directions: "Directions | DirectionRows | str | Path | None", folder: Path
) -> tuple[tuple[EditStep, ...], EditOptions]:
    if manifest is None:
        if directions is None:
            asked = "say with `directions` what it was edited with"
            raise UsageError(without_manifest(folder, asked), option="directions")
        return (EditStep(directions=rows_of(directions)),), EditOptions()
    try:
        options = EditOptions.from_dict(manifest["edit"])
        steps = tuple(EditStep.from_dict(entry) for entry in manifest["edit"]["steps"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder}/weight_edit.json does not say how the model was edited; bake again") from error
    return steps, options


def _storage(baking: PreparedEdit) -> str:
    """The storage dtype of the edited tensors: the coarsest; bfloat16 for quantised formats."""
    stored = {TORCH_NAMES.get(edit.target.parts[edit.target.name][0], "bfloat16") for edit in baking.tensors.edits}
    # An addition may edit none, and create biases alone.
    stored |= {TORCH_NAMES.get(added.dtype, "bfloat16") for added in baking.added.values()}
    return max(stored, key=_COARSENESS.index)


def _file_problems(wanted: Mapping[str, bytes], folder: Path) -> Iterator[str]:
    """One line for each file that the edit changes with the format, and that is not what it makes of it."""
    for name, content in wanted.items():
        path = folder / name
        if not path.is_file() or bytes(read_whole(path)) != content:
            yield f"{name}: the file is not what the edit makes of it"


def _base_card_problems(baking: PreparedEdit, folder: Path, manifest: Mapping[str, Any] | None) -> list[str]:
    """One line if the base's card is not kept unchanged under its new name.

    The comparison of equally named files does not cover it.
    """
    if manifest is None or baking.base_card is None:
        return []
    kept = folder / baking.base_card
    if kept.is_file() and read_whole(kept) == bytes(baking.checkpoint.read_file(README)):
        return []
    return [f"{baking.base_card}: is not the base's {README}"]


def _weight_problems(report: IntegrityReport, weights: WeightCheck, baking: PreparedEdit) -> list[str]:
    """One line for each way in which more is left in the weights than storing explains."""
    full = {
        name
        for stream in baking.tensors.edits
        if isinstance(stream.map, LowRankMap) and len(removed(stream.map)) == stream.map.rank
        for name in stream.target.parts
    }
    problems = []
    if weights.unchanged and not baking.added:
        problems.append("the edit changes no number of any tensor: what is stored is the base")
    for edit in report.edits:
        if edit.tensor not in full or edit.left is None or edit.left_exact is None:
            continue
        name = printable(edit.tensor)
        if not edit.left_exact < STRICT_LEFT:
            problems.append(f"{name}: the edit leaves {edit.left_exact:.1e} of V^T W, more than {STRICT_LEFT:.0e}")
        # What the formula's own rounding puts back is its due, but for formats of a few bits, where it can undo the
        # edit: rounding errors must lie along V no more than along any other direction.
        if edit.rounding is None:
            explained = edit.ok and edit.left < UNDONE
        else:
            explained = edit.left < max(STRICT_LEFT, 2 * edit.rounding)
        if not explained:
            problems.append(f"{name}: {edit.left:.1e} of V^T W is left, more than rounding explains")
    return problems
