"""The last two files of an output, model card and manifest, and the reading of a manifest."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from weight_edit.baking.card.card import model_card
from weight_edit.checkpoint.manifest import MANIFEST, FileRecord, read_manifest, record, records_of, write_manifest
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import UsageError
from weight_edit.hub.source import Named, find_local, text_of
from weight_edit.utils.json import json_safe

README = "README.md"


def base_card_name(taken: Collection[str]) -> str:
    """The file name for the base's card: BASE_README.md, or numbered if that is taken."""
    number = 1
    while (name := f"BASE_README{'' if number == 1 else f'_{number}'}.md") in taken:
        number += 1
    return name


@dataclass(frozen=True)
class Origin:
    """The source model of an edited checkpoint.

    Attributes:
        model: a Hub id, the name of an embedded model, or the last part of a local folder's name.
        on_hub: whether `model` is a Hub id.
        revision: its commit.
    """

    model: str
    on_hub: bool
    revision: str | None

    def revision_of(self, base: Named) -> str | None:
        """The commit that was edited, if the base is the repository that was; None for any other, and for a folder."""
        same = self.on_hub and self.model == text_of(base) and find_local(base) is None
        return self.revision if same else None


def origin_of(manifest: Mapping[str, Any], folder: Path) -> Origin:
    """The source model that a manifest names.

    Raises:
        UsageError: it does not say.
    """
    source = manifest.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("model"), str):
        raise UsageError(f"{folder}/{MANIFEST} does not say which model was edited; bake again")
    revision = source.get("revision")
    return Origin(source["model"], source.get("on_hub") is True, revision if isinstance(revision, str) else None)


def recorded_measurements(folder: str | Path) -> Mapping[str, Any]:
    """What an output's manifest records of measurements; empty for anything else."""
    try:
        manifest = read_manifest(Path(folder)) if (Path(folder) / MANIFEST).is_file() else None
    except UsageError:
        return {}
    measured = (manifest or {}).get("measurements")
    return measured if isinstance(measured, Mapping) else {}


def stamp(folder: Path, measurements: Mapping[str, Any], failed: tuple[str, ...] = ()) -> None:
    """Add measurements, or failed checks, to the card and manifest of an edited checkpoint.

    Args:
        folder: an output of `bake`.
        measurements: "baseline", "edited" and "verification", as `run` has them.
        failed: one line per failed check.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder} has no weight_edit.json; only outputs of bake can be stamped")
    # Only what was measured: the rest of a run's summary may name local files.
    measured = {key: measurements.get(key) for key in ("baseline", "edited", "verification")}
    write_card_and_manifest(folder, summary_of(manifest), records_of(manifest), measured, failed)


def summary_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest's account of the edit, without later measurements."""
    return {key: value for key, value in manifest.items() if key not in ("files", "measurements", "failed")}


def write_card_and_manifest(
    folder: Path,
    summary: Mapping[str, Any],
    records: Mapping[str, FileRecord],
    measurements: Mapping[str, Any] | None = None,
    failed: tuple[str, ...] = (),
) -> None:
    """Write the card and the manifest into a checkpoint's folder.

    Args:
        summary: what was edited and how.
        records: of every other file.
        measurements, failed: as in `stamp`.
    """
    content = with_measurements(summary, measurements, failed)
    write_whole(folder / README, model_card(content))
    write_manifest(folder, content, {**records, README: record(folder, README, "added")})


def with_measurements(
    summary: Mapping[str, Any], measurements: Mapping[str, Any] | None, failed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The manifest's content without `files`, as JSON reads it back; the card is made from it."""
    marks = {"failed": list(failed)} if failed else {}
    content = {**summary, "measurements": json_safe(measurements), **marks}
    # Keys are text and tuples are lists once it was read again, and the card must be the same then.
    return cast(dict[str, Any], json.loads(json.dumps(content, allow_nan=False)))
