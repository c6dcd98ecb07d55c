"""Verify an edited checkpoint against its base. It fails closed: what could not be measured has not passed."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weight_edit.baking import PLAIN, Baking, EditOptions, prepare, rows_of
from weight_edit.checkpoint.integrity import IntegrityReport, check_integrity
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.directions.artifact import Directions
from weight_edit.directions.file import DirectionRows
from weight_edit.directions.packing import unpacked
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
from weight_edit.prompts import ChatFormat, PromptSet, load_prompts
from weight_edit.publish.finishing import README, origin_of
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model, load
from weight_edit.runtime.sources import resolve
from weight_edit.verification.faithfulness import Agreement, agreement, logits_of
from weight_edit.verification.stream import Leak, stream_leak
from weight_edit.verification.tolerances import TOLERANCES
from weight_edit.verification.weights import WeightCheck, check_weights

DEFAULT_PROMPTS = "organism:answered:test"


@dataclass(frozen=True)
class Precision:
    """The checks that run the models, in one dtype.

    Attributes:
        dtype: what the models computed in.
        leak: in the edited model's stream.
        leak_before: in the base's.
        faithful: edited weights against the base with hooks.
        tying: what editing a tied unembedding with its embedding changes: edited weights against hooks that
            leave the unembedding alone; None where nothing is tied.
    """

    dtype: str
    leak: Leak
    leak_before: Leak
    faithful: Agreement
    tying: Agreement | None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "leak": self.leak.worst,
            "leak_at": self.leak.where,
            "leak_before": self.leak_before.worst,
            "hook_against_weights": self.faithful.to_dict(),
            "tied_unembedding": None if self.tying is None else self.tying.to_dict(),
        }


@dataclass(frozen=True)
class Verification:
    """Everything that was checked.

    Attributes:
        integrity: bytes, names, digests.
        weights: edited tensors against the formula.
        precisions: the model checks, by dtype: float32, and the storage dtype.
        storage: the storage dtype of the edited tensors.
        complete: whether the edit claims to leave nothing; if not, the leak is reported but not judged.
        prompts: number of prompts that the models ran on.
        problems: one line per failed check; empty when all passed.
    """

    integrity: IntegrityReport
    weights: WeightCheck
    precisions: Mapping[str, Precision]
    storage: str
    complete: bool
    prompts: int
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return not self.problems

    @property
    def leak(self) -> float:
        """In float32."""
        return self.precisions["float32"].leak.worst

    @property
    def logit_difference(self) -> float:
        """Largest, hooks against weights, in float32."""
        return self.precisions["float32"].faithful.largest

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "passed": self.passed,
            "integrity": self.integrity.ok,
            "leak": self.leak,
            "logit_difference": self.logit_difference,
            "complete": self.complete,
            "storage_dtype": self.storage,
            "prompts": self.prompts,
            "problems": list(self.problems),
            "left_in_weights": self.weights.left,
            "left_in_weights_at": self.weights.left_where,
            "by_dtype": {name: precision.to_dict() for name, precision in self.precisions.items()},
            "integrity_report": self.integrity.to_dict(),
        }


def verify(
    base: str | Path,
    edited: str | Path,
    *,
    directions: Directions | DirectionRows | str | Path | None = None,
    prompts: PromptSet | None = None,
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
    found, options = _what_was_done(manifest, directions, folder)
    source = resolve(base, revision=revision or _revision(manifest, base, folder), token=token)
    baking = prepare(source, found, options, trust_remote_code=trust_remote_code)
    written = set() if manifest is None else {README, baking.base_card or README}
    report = check_integrity(
        baking.checkpoint,
        folder,
        may_differ=set(baking.tensor_edits()),
        added=baking.added_names,
        written_files=written,
        changed_config=baking.summary()["config_changed"],
    )
    try:
        edited_checkpoint = Checkpoint.open(folder)
    except UsageError as error:
        raise VerificationError(f"{folder} cannot be read as a checkpoint: {error}") from error
    weights = check_weights(baking, edited_checkpoint)
    chosen = (prompts or load_prompts(DEFAULT_PROMPTS)).at_most(n_prompts)
    storage = _storage(baking)
    precisions = {
        dtype: _run(baking, folder, chosen, dtype, system, template, device, trust_remote_code)
        for dtype in dict.fromkeys(("float32", "float32" if storage == "float64" else storage))
    }
    problems = [
        *report.problems,
        *(f"marked as failed: {reason}" for reason in (manifest or {}).get("failed") or []),
        *_base_card_problems(baking, folder, manifest),
        *_directions_problems(manifest, found),
        *_weight_problems(weights, storage, options.strength),
        *(line for check in precisions.values() for line in _precision_problems(check, storage, baking.plan.complete)),
    ]
    return Verification(
        report,
        weights,
        precisions,
        storage,
        baking.plan.complete,
        len(chosen),
        tuple(dict.fromkeys(problems)),
    )


def _what_was_done(
    manifest: Mapping[str, Any] | None, directions: Directions | DirectionRows | str | Path | None, folder: Path
) -> tuple[DirectionRows, EditOptions]:
    given = None if directions is None else rows_of(directions)
    if manifest is None:
        if given is None:
            raise UsageError(f"{folder} has no weight_edit.json; say with --directions what it was edited with")
        return given, EditOptions()
    try:
        entry = manifest["edit"]
        layers = entry["layers"]
        options = EditOptions(
            str(entry["edit"]),
            float(entry["strength"]),
            None if layers is None else frozenset(int(layer) for layer in layers),
            str(entry["embeddings"]),
        )
        recorded = DirectionRows(unpacked(manifest["directions"]), {"method": "from weight_edit.json"})
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder}/weight_edit.json does not say how the model was edited; bake again") from error
    return given or recorded, options


def _revision(manifest: Mapping[str, Any] | None, base: str | Path, folder: Path) -> str | None:
    """The revision that was edited, when the base is named as it was then."""
    if manifest is None:
        return None
    origin = origin_of(manifest, folder)
    return origin.revision if origin.model == str(base) else None


def _storage(baking: Baking) -> str:
    """The dtype of the edited tensors; of several, the coarsest."""
    stored = {PLAIN[baking.checkpoint.tensors[name].dtype] for name in baking.tensor_edits()}
    return max(stored, key=lambda dtype: (TOLERANCES[dtype].left, dtype))


def _run(
    baking: Baking,
    folder: Path,
    prompts: PromptSet,
    dtype: str,
    system: str | None,
    template: str | None,
    device: str | None,
    trust_remote_code: bool,
) -> Precision:
    """The checks that need the models; one model at a time is in memory."""

    def opened(path: Path) -> Model:
        return load(path, dtype=dtype, device=device, trust_remote_code=trust_remote_code)

    rows = torch.from_numpy(baking.plan.directions)
    model = opened(baking.source.path)
    form = ChatFormat(model.tokenizer, system=system, template=template)
    sequences = [form.encode(prompt) for prompt in prompts.prompts]
    before = stream_leak(model, rows, sequences)
    hooks = baking.plan.hooks(lambda name: model.model.get_parameter(name).detach())
    with hooked(model.model, hooks):
        wanted = logits_of(model, sequences)
    exact: list[Tensor] | None = None
    if baking.plan.tied_map is not None:
        with hooked(model.model, [hook for hook in hooks if hook.module != baking.anatomy.unembedding]):
            exact = logits_of(model, sequences)
    del model
    try:
        model = opened(folder)
    except (UsageError, UnsupportedError) as error:
        raise VerificationError(f"{folder} cannot be loaded: {error}") from error
    given = logits_of(model, sequences)
    return Precision(
        dtype,
        stream_leak(model, rows, sequences),
        before,
        agreement(wanted, given),
        None if exact is None else agreement(exact, given),
    )


def _base_card_problems(baking: Baking, folder: Path, manifest: Mapping[str, Any] | None) -> list[str]:
    """The base's card moves to another name, where the comparison of equal names does not see it."""
    if manifest is None or baking.base_card is None:
        return []
    kept = folder / baking.base_card
    if kept.is_file() and kept.read_bytes() == bytes(baking.checkpoint.read_file(README)):
        return []
    return [f"{baking.base_card}: is not the base's {README}"]


def _directions_problems(manifest: Mapping[str, Any] | None, given: DirectionRows) -> list[str]:
    if manifest is None:
        return []
    recorded = unpacked(manifest["directions"])
    if recorded.shape == given.rows.shape and np.allclose(recorded, given.rows, atol=1e-6):
        return []
    return ["directions: the file given differs from the directions in weight_edit.json"]


def _weight_problems(weights: WeightCheck, storage: str, strength: float) -> list[str]:
    problems = [f"{name}: differs from the edit applied to the base's tensor" for name in weights.different]
    allowed = TOLERANCES[storage].left
    if strength == 1.0 and not weights.left < allowed:
        problems.append(f"{weights.left_where}: {weights.left:.1e} of V^T W is left, more than {allowed:.0e}")
    return problems


def _precision_problems(check: Precision, storage: str, complete: bool) -> list[str]:
    problems = []
    bounds = TOLERANCES[storage]
    if complete and not check.leak.worst < bounds.leak:
        problems.append(
            f"stream in {check.dtype}: {check.leak.worst:.1e} of {check.leak.where} lies along the directions, "
            f"more than {bounds.leak:.0e}"
        )
    allowed = bounds.logits * max(1.0, check.faithful.scale) if math.isfinite(check.faithful.scale) else 0.0
    if not check.faithful.largest < allowed:
        problems.append(
            f"logits in {check.dtype}: edited weights and hooks differ by {check.faithful.largest:.1e}, "
            f"more than {allowed:.1e}"
        )
    if not check.faithful.kl < bounds.kl:
        problems.append(
            f"next tokens in {check.dtype}: edited weights and hooks differ by a KL divergence of "
            f"{check.faithful.kl:.1e}, more than {bounds.kl:.0e}"
        )
    return problems
