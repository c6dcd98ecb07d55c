"""The trial of one model type: proven through the disk, refused by name, or failed."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from weight_edit.anatomy.model_errors import MODEL_ERRORS
from weight_edit.errors import WeightEditError, first_line
from weight_edit.inspection.catalogue.disk_trial import through_disk
from weight_edit.inspection.catalogue.entries import Entry
from weight_edit.inspection.catalogue.samples import sample
from weight_edit.inspection.catalogue.status import FAILED, PROVEN, REFUSED


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of trying one model type.

    Attributes:
        model_type, architecture, tasks, variant: of the entry.
        status: "proven" (complete, and hooks agree with weights, on what was loaded from the disk), "refused" (with a
            reason, before a byte was written), or "failed": neither of the two, a fault of this package.
        reason: why it was refused, or what failed.
        leak, leak_before, logit_difference, points, kinds, writers, mixers, unknown: as in `DiskTrial`.
        seconds: that the trial took.
    """

    model_type: str
    architecture: str
    tasks: tuple[str, ...]
    status: str
    reason: str = ""
    leak: float | None = None
    leak_before: float | None = None
    logit_difference: float | None = None
    points: int = 0
    kinds: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    mixers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    seconds: float = 0.0
    variant: str | None = None

    @property
    def label(self) -> str:
        """The name in tables: "opt (350m)"."""
        return Entry(self.model_type, self.architecture, self.tasks, self.variant).label

    @property
    def why(self) -> str:
        """The reason without what a table row already says."""
        # Where a library is missing, transformers goes on about how it is installed.
        reason = self.reason.partition(" You can install it")[0]
        reason = reason.removeprefix(f"model type '{self.model_type}'").lstrip(": ")
        return reason.removesuffix("; only decoder language models are supported")

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Trial":
        """The trial of a `to_dict` result, also after JSON has turned tuples into lists."""
        entries: dict[str, Any] = {key: tuple(x) if isinstance(x, list) else x for key, x in value.items()}
        return cls(**entries)

    @classmethod
    def of(cls, entry: Entry, status: str, reason: str = "", **measured: Any) -> "Trial":
        """The trial of an entry, with the measurements that a trial records."""
        named = {field.name for field in fields(cls)}
        kept = {key: value for key, value in measured.items() if key in named}
        return cls(
            model_type=entry.model_type,
            architecture=entry.architecture,
            tasks=entry.tasks,
            status=status,
            reason=reason,
            variant=entry.variant,
            **kept,
        )


def attempt(entry: Entry, *, seed: int = 1) -> Trial:
    """Try one model type; any unforeseen exception counts as failed.

    Args:
        entry: the type, and a variant of it where the entry says one.
        seed: of weights, directions and tokens; another than that of deriving, which is 0.
    """
    started = time.perf_counter()
    measured: dict[str, Any] = {}
    try:
        with TemporaryDirectory(prefix="weight-edit-") as folder:
            found = through_disk(sample(entry.model_type, entry.variant), Path(folder), seed=seed)
        measured = asdict(found)
        status, reason = PROVEN, ""
        if not found.passed:
            status, reason = FAILED, "something is left of the directions, or hooks and weights differ"
    except WeightEditError as error:
        status, reason = (REFUSED if error.exit_code == 3 else FAILED), str(error)
    except MODEL_ERRORS as error:
        status, reason = FAILED, f"{type(error).__name__}: {first_line(error)}"
    return Trial.of(entry, status, reason, **{**measured, "seconds": time.perf_counter() - started})
