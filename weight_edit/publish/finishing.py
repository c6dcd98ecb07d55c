"""The last two files of an output: its model card and its manifest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.manifest import MANIFEST, FileRecord, read_manifest, record, records_of, write_manifest
from weight_edit.errors import UsageError
from weight_edit.finite import finite
from weight_edit.publish.card import model_card

README = "README.md"
BASE_README = "BASE_README.md"


def stamp(folder: Path, measurements: Mapping[str, Any], failed: tuple[str, ...] = ()) -> None:
    """Put measurements, or the reasons why it must not be used, on the card and manifest of an edited checkpoint.

    Args:
        folder: an output of `bake`.
        measurements: "baseline", "edited" and "verification", as `run` has them.
        failed: one line per failed check.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise UsageError(f"{folder} has no weight_edit.json; only outputs of bake can be stamped")
    summary = {key: value for key, value in manifest.items() if key not in ("files", "measurements", "failed")}
    (folder / MANIFEST).unlink()
    write_card_and_manifest(folder, summary, records_of(manifest), measurements, failed)


def write_card_and_manifest(
    folder: Path,
    summary: Mapping[str, Any],
    records: Mapping[str, FileRecord],
    measurements: Mapping[str, Any] | None = None,
    failed: tuple[str, ...] = (),
) -> None:
    base_card = folder / BASE_README
    base_text = base_card.read_text("utf-8", "replace") if base_card.exists() else None
    (folder / README).write_text(model_card(summary, measurements, base_text, failed), encoding="utf-8")
    marks = {"failed": list(failed)} if failed else {}
    files = {**records, README: record(folder, README, "added")}
    write_manifest(folder, {**summary, "measurements": finite(measurements), **marks}, files)
