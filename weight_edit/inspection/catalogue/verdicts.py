"""The verdicts on all families for one release of transformers, in a file beside the page."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.inspection.catalogue.entries import Entry
from weight_edit.inspection.catalogue.status import FAILED, PROVEN

if TYPE_CHECKING:
    from weight_edit.inspection.catalogue.summary import Catalogue


@dataclass(frozen=True)
class Verdict:
    """The status of a model type or variant, with its reason.

    Attributes:
        entry: it.
        status: "proven", "refused" or, of a catalogue that is not for a page, "failed".
        reason: why it was refused.
    """

    entry: Entry
    status: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        entry = self.entry
        named = {"model_type": entry.model_type, "variant": entry.variant, "architecture": entry.architecture}
        return {**named, "tasks": list(entry.tasks), "status": self.status, "reason": self.reason}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Verdict":
        """The verdict of a `to_dict` result."""
        entry = Entry(value["model_type"], value["architecture"], tuple(value["tasks"]), value["variant"])
        return cls(entry, value["status"], value["reason"])


@dataclass(frozen=True)
class Verdicts:
    """The verdicts for one release of transformers.

    Attributes:
        versions: of weight_edit, transformers and torch, that they were made with.
        verdicts: in alphabetical order.
    """

    versions: dict[str, str]
    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, found: "Catalogue") -> "Verdicts":
        """The verdicts of a catalogue."""
        made = ((Entry(t.model_type, t.architecture, t.tasks, t.variant), t.status, t.reason) for t in found.trials)
        return cls(found.versions, tuple(Verdict(*each) for each in made))

    @classmethod
    def read(cls, path: Path) -> "Verdicts":
        """The verdicts in a file written from `to_json`."""
        value = json.loads(path.read_text(encoding="utf-8"))
        return cls(value["versions"], tuple(map(Verdict.from_dict, value["verdicts"])))

    def to_json(self) -> str:
        """JSON with one verdict per line, so that releases can be compared by line."""
        lines = ",\n".join(json.dumps(verdict.to_dict(), ensure_ascii=False) for verdict in self.verdicts)
        return f'{{"versions": {json.dumps(self.versions)}, "verdicts": [\n{lines}\n]}}\n'

    @property
    def transformers(self) -> str:
        """The release of transformers that the verdicts are for."""
        return self.versions["transformers"]

    @property
    def installed(self) -> bool:
        """Whether that release is installed."""
        return version("transformers") == self.transformers

    def by_type(self) -> dict[str, Verdict]:
        """Model type -> the verdict on its usual form."""
        return {verdict.entry.model_type: verdict for verdict in self.verdicts if verdict.entry.variant is None}


@dataclass(frozen=True)
class Difference:
    """The change of a model type's or variant's status between two releases.

    Attributes:
        label: as in `Entry.label`.
        before, after: its status; None where it was not there, or is gone.
        reason: why it is refused, or what failed.
    """

    label: str
    before: str | None
    after: str | None
    reason: str

    @property
    def loss(self) -> bool:
        """Whether the status got worse: failed, gone, or no longer proven."""
        return self.after in (None, FAILED) or self.before == PROVEN

    def __str__(self) -> str:
        if self.after is None:
            return f"{self.label}: is gone"
        known = "new" if self.before is None else f"{self.before} before"
        return f"{self.label}: {known}, {self.after}{f' ({self.reason})' if self.reason else ''}"


def differences(before: Iterable[Verdict], after: Iterable[Verdict]) -> list[Difference]:
    """New, gone and changed verdicts, in alphabetical order."""
    old, new = ({verdict.entry.label: verdict for verdict in side} for side in (before, after))
    found = []
    for label in sorted(old.keys() | new.keys()):
        was, now = old.get(label), new.get(label)
        pair = (None if was is None else was.status, None if now is None else now.status)
        if pair[0] != pair[1]:
            found.append(Difference(label, *pair, "" if now is None else now.reason))
    return found
