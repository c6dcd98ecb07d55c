"""The manifest `weight_edit.json`: the account of an edit, and every other file's SHA-256."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from weight_edit.checkpoint.files import (
    Stamp,
    check_relative,
    chunks,
    list_files,
    locate,
    meant,
    named_files,
    open_regular,
    printable,
    read_exactly,
    read_json,
)
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import UsageError, VerificationError
from weight_edit.utils.progress import bar

MANIFEST = "weight_edit.json"

Origin = Literal["copied", "edited", "added", "replaced", "linked"]

_MAX_SIZE = 50_000_000
_TEXTS = (
    "tensors",
    "tensors_added",
    "config_changed",
    "tensors_unknown",
    "kept_in_front",
    "weights_not_edited",
    "failed",
)
_OBJECTS = ("source", "edit", "mtp", "measurements", "pack")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileRecord:
    """One file of an output: SHA-256 in hexadecimal, size in bytes, and origin.

    `origin` is "copied" (the source's bytes), "edited" (some of them changed: a shard with edited tensors, an
    index or config with changed entries), "replaced" (new content for a name of the source), "added", or "linked"
    (the source's own file under a second name: a change of the one changes the other).
    """

    sha256: str
    size: int
    origin: Origin


def sha256(path: Path | str) -> str:
    """SHA-256 of a regular file, in hexadecimal.

    Raises:
        UsageError: missing, or not a regular file.
    """
    return _digest(Path(path))[0]


def _digest(path: Path) -> tuple[str, int]:
    with open_regular(path) as file:
        size = Stamp.of(file).size
        return digest_of(file, size, str(path)), size


def digest_of(file: BinaryIO, count: int, name: str) -> str:
    """SHA-256 of the next `count` bytes of a file, in hexadecimal.

    Raises:
        UsageError: it ends before.
    """
    digest = hashlib.sha256()
    for piece in chunks(file, count, name):
        digest.update(piece)
    return digest.hexdigest()


def record(folder: Path, name: str, origin: Origin) -> FileRecord:
    """The record of an existing file of an output folder, such as a model card."""
    digest, size = _digest(folder / check_relative(name, str(folder)))
    return FileRecord(digest, size, origin)


def write_manifest(folder: Path, payload: Mapping[str, Any], files: Mapping[str, FileRecord]) -> FileRecord:
    """Write or replace `weight_edit.json`: the payload's keys, then `files` sorted by name.

    Raises:
        ValueError: a payload with a key `files`, or records that are not exactly those of the folder's files.
    """
    if "files" in payload:
        raise ValueError("the payload's key 'files' is the manifest's own")
    present = {name for name in list_files(folder)[0] if name != MANIFEST}
    if present != set(files):
        raise ValueError(f"records and files of {folder} differ: {sorted(present ^ set(files))}")
    content = {**payload, "files": {name: asdict(files[name]) for name in sorted(files)}}
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    raw = text.encode("utf-8")
    # At no time is there an output without its manifest, or with half of one.
    write_whole(folder / MANIFEST, raw)
    return FileRecord(hashlib.sha256(raw).hexdigest(), len(raw), "added")


def check_folder(folder: Path | str) -> None:
    """Refuse what is no folder, where the output of `bake` is asked for.

    Raises:
        UsageError: it is none.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"{printable(str(folder))} is not a folder; give the output of bake")


def said_swapped(base: object, edited: object) -> str:
    """That an output of `bake` stands where its base is asked for, and no output in its place; empty where not known.

    Where both are outputs, as of an edit of an edit, their manifests tell it by the names that they give their bases.

    Args:
        base, edited: models as they were given: names, folders, or loaded ones, of which nothing is known.
    """
    before, after = _source_named(base), _source_named(edited) or _source_named(_inside(edited))
    if before is None or (after is not None and (before not in _names(edited) or after in _names(base))):
        return ""
    what = "" if after is not None else f", and {printable(str(edited))} has none"
    return f"{printable(str(base))} has a {MANIFEST}, by which it is an edit of {printable(before)}{what}"


def check_order(base: object, edited: object, *, manifest_needed: bool = True) -> None:
    """Refuse a base and its edit in each other's place, and one folder in both, before anything is read.

    Args:
        base, edited: as they were given.
        manifest_needed: what was edited has to be an output of `bake`; else it may be anybody's edit of such an output.

    Raises:
        UsageError: saying which is which.
    """
    if isinstance(base, str | os.PathLike) and isinstance(edited, str | os.PathLike):
        with suppress(OSError):
            if Path(edited).is_dir() and Path(base).samefile(edited):
                raise UsageError(f"{printable(str(edited))} is given both as the base and as the edited model")
    swapped = said_swapped(base, edited)
    if swapped and (manifest_needed or _source_named(base) in _names(edited)):
        raise UsageError(f"{swapped}; give the base first, and the edited model behind it")


def _source_named(model: object) -> str | None:
    """What an output's manifest calls its base; None for all else."""
    if not isinstance(model, str | os.PathLike):
        return None
    try:
        source = (read_manifest(Path(model)) or {}).get("source")
    except (UsageError, OSError, ValueError):
        return None
    name = source.get("model") if isinstance(source, dict) else None
    return name if isinstance(name, str) else None


def _inside(folder: object) -> Path | None:
    """Where the edited model is if a run's folder is given in its place."""
    return Path(folder) / "model" if isinstance(folder, str | os.PathLike) else None


def _names(model: object) -> tuple[str, ...]:
    """By which names a manifest may know a model: as it was given, and its folder's own."""
    text = os.fspath(model) if isinstance(model, str | os.PathLike) else ""
    return (str(text), Path(str(text)).resolve().name) if text else ()


def without_manifest(folder: Path, asked: str) -> str:
    """The text of the error for a folder without a manifest; a run's folder has its edited model in `model`.

    Args:
        asked: what the user is asked for where there is none in it either.
    """
    inside = folder / "model"
    instead = meant(inside) if (inside / MANIFEST).is_file() else ""
    return f"{printable(str(folder))} has no {MANIFEST}{instead or f'; {asked}'}"


def read_manifest(folder: Path | str) -> dict[str, Any] | None:
    """The manifest of a folder, with entry types checked; None if it has none.

    Raises:
        UsageError: malformed, with a file name that leaves the folder, or itself a link out of it.
    """
    raw = _bytes_of(folder)
    return None if raw is None else parse_manifest(raw, str(Path(folder).resolve() / MANIFEST))


def _bytes_of(folder: Path | str) -> bytes | None:
    root = Path(folder).resolve()
    path = root / MANIFEST
    if not path.exists() and not path.is_symlink():
        return None
    with open_regular(locate(root, MANIFEST)) as file:
        size = Stamp.of(file).size
        if size > _MAX_SIZE:
            raise UsageError(f"{printable(str(path))}: {size} bytes is too long for a manifest")
        return bytes(read_exactly(file, size, MANIFEST))


@dataclass(frozen=True, kw_only=True)
class FinishedOutput:
    """An output of `bake` or `run` that can be passed on.

    Attributes:
        folder: where it is.
        raw: the bytes of its manifest.
        manifest: what they say.
    """

    folder: Path
    raw: bytes
    manifest: dict[str, Any]

    @classmethod
    def of(cls, folder: Path | str) -> "FinishedOutput":
        """The output in a folder; its files are not looked at.

        Raises:
            UsageError: no folder, or one without a manifest that can be read.
            VerificationError: it is marked as failed.
        """
        check_folder(folder)
        path = Path(folder)
        raw = _bytes_of(path)
        if raw is None:
            raise UsageError(without_manifest(path, "give an output of bake or run"))
        manifest = parse_manifest(raw, printable(str(path / MANIFEST)))
        if manifest.get("failed"):
            raise VerificationError(
                f"{printable(str(path))} is marked as failed: {printable('; '.join(map(str, manifest['failed'])))}"
            )
        return cls(folder=path, raw=raw, manifest=manifest)

    @cached_property
    def records(self) -> dict[str, FileRecord]:
        """Its files but the manifest."""
        return records_of(self.manifest)

    def check_unchanged(self) -> tuple[str, ...]:
        """Refuse files that are not exactly those of the manifest; the skipped folders of other tools.

        Raises:
            VerificationError: naming them.
        """
        changed, skipped = changed_files(self.folder, self.records)
        if changed:
            raise VerificationError(
                f"{printable(str(self.folder))}: {named_files(changed)} not as {MANIFEST} has it; what was changed "
                "since is no part of the edit: bake again"
            )
        return skipped


def changed_files(folder: Path, records: Mapping[str, FileRecord]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the files that are missing, of no record, or not as recorded, sorted; and the skipped folders.

    Raises:
        UsageError: a file cannot be read.
    """
    files, skipped = list_files(folder)
    present = set(files) - {MANIFEST}
    changed = present ^ records.keys()
    root = folder.resolve()
    with bar("checking", sum(each.size for each in records.values()), unit="bytes") as progress:
        for name, known in records.items():
            if name in present and _digest(root / name) != (known.sha256, known.size):
                changed.add(name)
            progress.advance(known.size)
    return tuple(sorted(changed)), skipped


def parse_manifest(raw: bytes | bytearray, path: str) -> dict[str, Any]:
    """The manifest in the bytes of a `weight_edit.json`, with entry types checked.

    Args:
        path: what messages call it.

    Raises:
        UsageError: malformed, or with a file name that leaves the folder.
    """
    found = read_json(raw, path)
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise UsageError(f"{printable(path)}: must be a JSON object with `files`")
    for name, entry in found["files"].items():
        check_relative(name, path)
        if not is_record(entry) or name == MANIFEST:
            raise UsageError(f"{printable(path)}: the entry of {printable(name)!r} must be sha256, size and origin")
    _check_entries(found, printable(path))
    return found


def _check_entries(manifest: Mapping[str, Any], where: str) -> None:
    """Refuse an entry of a wrong type; whether it is there, its readers check."""
    for name in _TEXTS:
        value = manifest.get(name, [])
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise UsageError(f"{where}: `{name}` must be a list of texts")
    for name in _OBJECTS:
        if not isinstance(manifest.get(name) or {}, dict):
            raise UsageError(f"{where}: `{name}` must be a JSON object")
    edit = manifest.get("edit")
    steps = edit.get("steps") if edit else None
    if edit and (not isinstance(steps, list) or not steps or not all(isinstance(step, dict) for step in steps)):
        raise UsageError(f"{where}: `edit.steps` must be a list of the steps that were made")
    if not isinstance(manifest.get("weight_edit", ""), str):
        raise UsageError(f"{where}: `weight_edit` must be the version that wrote it")
    if manifest.get("base_card") is not None:
        check_relative(manifest["base_card"], f"{where}: `base_card`")


def is_record(entry: object) -> bool:
    """Whether a JSON value is a `FileRecord`."""
    return (
        isinstance(entry, dict)
        and entry.keys() == {"sha256", "size", "origin"}
        and isinstance(entry["sha256"], str)
        and _SHA256.fullmatch(entry["sha256"]) is not None
        and type(entry["size"]) is int
        and entry["size"] >= 0
        and entry["origin"] in get_args(Origin)
    )


def records_of(manifest: Mapping[str, Any]) -> dict[str, FileRecord]:
    """The file records of a manifest from `read_manifest`."""
    return {name: FileRecord(**entry) for name, entry in manifest["files"].items()}
