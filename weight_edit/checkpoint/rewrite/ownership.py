"""Ownership of output folders: files listed in a record and unchanged since may be removed.

Outputs of `bake` and `adapter` have their record in `weight_edit.json`, folders of runs in `run.json` (under `files`),
where the checkpoints in them have a manifest of their own. Only what is ours may be removed or replaced: the digests
are looked at, so that a file that the user has changed counts as the user's.

What a step of a run writes is named in `run.json` before it is there, under `writing`, so that a run that is killed in
the midst of it can be gone on with or replaced: files of these names are ours whatever is in them.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import Stamp, check_relative, open_regular, printable, read_exactly, read_json
from weight_edit.checkpoint.manifest import MANIFEST, digest_of, read_manifest, records_of
from weight_edit.checkpoint.rewrite.attempt import is_left_over
from weight_edit.checkpoint.whole_file import is_unfinished
from weight_edit.errors import UsageError
from weight_edit.utils.progress import bar

RUN = "run.json"
LOG = "log.txt"
OURS = (MANIFEST, RUN)
"""The record files; a folder with neither was not made by this package."""

MODEL, UNVERIFIED, FAILED = "model", "model.unverified", "model.failed"
"""The checkpoints that a run's folder may hold."""

ANSWERS = "answers"
"""The part of a run's folder that its first step makes, and fills when it is done."""

REPORT, REPORT_RECORD = "report", "report.json"
"""The part of a run's folder that holds its report, and the record in that."""

SEARCH_RECORD = "search/search.json"
"""The record of a search in a run's folder."""

_MAX_RUN = 1_000_000_000
_SHOWN = 3
_LOGGED = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
_known: dict[Stamp, str] = {}


@dataclass(frozen=True)
class Written:
    """The record of a written file: SHA-256 in hexadecimal and size; a log may grow by lines."""

    sha256: str
    size: int
    grows: bool = False

    @property
    def unfinished(self) -> bool:
        """Whether a run was writing it when it ended, so that nothing but its name is known."""
        return self.size < 0


_ANYTHING = Written("", -1)


def check_own(folder: Path) -> None:
    """Refuse to remove an output folder with foreign or changed files.

    Raises:
        UsageError: it has no record, or the record cannot be read; or naming what the record does not list, and what is
            not as it was written.
    """
    name = printable(str(folder))
    if (folder / MANIFEST).is_file():
        _check(folder, _of_checkpoint(folder, ""), (MANIFEST,))
        return
    if not (folder / RUN).is_file():
        raise UsageError(f"{name} has no {' or '.join(OURS)}, so it is not ours to overwrite; remove it yourself")
    records = run_records(folder)
    if records is None:
        raise UsageError(
            f"{name}/{RUN} does not list what a run wrote, so it is not ours to overwrite; remove it yourself"
        )
    marks: tuple[str, ...] = (RUN,)
    if _regular(folder / REPORT / REPORT_RECORD):
        # A report can be made again at any time, after the run took down what it wrote.
        kept = {name: entry for name, entry in records.items() if not name.startswith(f"{REPORT}/")}
        records = kept | {f"{REPORT}/{name}": entry for name, entry in _of_report(folder / REPORT).items()}
        marks = (RUN, f"{REPORT}/{REPORT_RECORD}")
    if (each := records.get(SEARCH_RECORD)) is not None and each.unfinished and _regular(folder / SEARCH_RECORD):
        # A search that goes on records the points that it writes itself.
        of_search = _listed(folder / SEARCH_RECORD) or {}
        records = {**{f"{Path(SEARCH_RECORD).parent}/{name}": entry for name, entry in of_search.items()}, **records}
    models = [each for each in (MODEL, UNVERIFIED, FAILED) if (folder / each / MANIFEST).is_file()]
    for model in models:
        records |= _of_checkpoint(folder, model)
    _check(folder, records, (*marks, *(f"{model}/{MANIFEST}" for model in models)), (ANSWERS,))


def check_report(folder: Path) -> None:
    """Refuse to remove a report with foreign or changed files.

    Raises:
        UsageError: as `check_own`.
    """
    if not _regular(folder / REPORT_RECORD):
        name = printable(str(folder))
        raise UsageError(f"{name} has no {REPORT_RECORD}, so it is not ours to overwrite; choose another output")
    _check(folder, _of_report(folder), (REPORT_RECORD,))


def check_part(folder: Path, name: str, records: Mapping[str, Written]) -> None:
    """Refuse to replace a part of a run's folder that has foreign or changed files.

    Args:
        folder: the run's.
        name: of the part, relative; nothing needs to be there.
        records: of the run.

    Raises:
        UsageError: as `check_own`; or a link is on the way there.
    """
    for path in (folder / name, *(folder / name).parents):
        if path == folder:
            break
        if path.is_symlink():
            raise UsageError(f"{printable(str(path))} is a link and is not written through; move it away")
    if not (folder / name).is_dir():
        if os.path.lexists(folder / name):
            _refuse(folder, [name] if _problem(folder, name, records.get(name)) else [], [])
    elif (folder / name / MANIFEST).is_file():
        check_own(folder / name)
    elif name == REPORT and _regular(folder / name / REPORT_RECORD):
        check_report(folder / name)
    else:
        check_files(folder / name, below(name, records))


def with_unfinished(records: Mapping[str, Written], names: Iterable[str]) -> dict[str, Written]:
    """The records of a run's folder, with what a step is writing in place of what an earlier one had written there."""
    return {**records, **dict.fromkeys(names, _ANYTHING)}


def below(name: str, records: Mapping[str, Written]) -> dict[str, Written]:
    """The records of the files in a part of a folder, relative to that part."""
    return {each.removeprefix(f"{name}/"): entry for each, entry in records.items() if each.startswith(f"{name}/")}


def check_files(folder: Path, records: Mapping[str, Written]) -> None:
    """Refuse to remove a folder whose files differ from their records.

    Raises:
        UsageError: as `check_own`.
    """
    _check(folder, records, ())


def run_records(folder: Path) -> dict[str, Written] | None:
    """The files that a run's record lists; None where it lists none.

    Raises:
        UsageError: `run.json` cannot be read.
    """
    return _listed(folder / RUN)


def _listed(path: Path) -> dict[str, Written] | None:
    """The files that a record lists under `files`; None where it lists none."""
    with open_regular(path) as file:
        size = Stamp.of(file).size
        if size > _MAX_RUN:
            raise UsageError(f"{printable(str(path))}: {size} bytes is too long for a run's record")
        found = read_json(read_exactly(file, size, str(path)), str(path), unique_keys=False)
    files = found.get("files") if isinstance(found, dict) and "weight_edit" in found else None
    if not isinstance(files, dict):
        return None
    records = {check_relative(name, str(path)): _written(entry, path) for name, entry in files.items()}
    writing = found.get("writing") or []
    if not isinstance(writing, list) or not all(isinstance(name, str) for name in writing):
        raise UsageError(f"{printable(str(path))}: `writing` must be a list of names")
    return with_unfinished(records, (check_relative(name, str(path)) for name in writing))


def _of_report(folder: Path) -> dict[str, Written]:
    """The files that a report lists, relative to its folder."""
    records = _listed(folder / REPORT_RECORD)
    if records is None:
        raise UsageError(f"{printable(str(folder))}/{REPORT_RECORD} does not list what was written; remove it yourself")
    return records


def _regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def written(path: Path, *, grows: bool = False) -> Written:
    """The record of a file in its present state.

    Raises:
        UsageError: it is missing, or no regular file.
    """
    with open_regular(path) as file:
        size = Stamp.of(file).size
        return Written(digest_of(file, size, str(path)), size, grows)


def files_below(folder: Path, name: str) -> list[str]:
    """Files below a folder's part, relative to the folder, sorted."""
    return sorted(f"{name}/{each}" for each, is_folder in _walk(folder / name) if not is_folder)


def _written(entry: Any, path: Path) -> Written:
    kinds = {"sha256": str, "size": int, "grows": bool}
    if not isinstance(entry, dict) or any(type(entry.get(key)) is not kind for key, kind in kinds.items()):
        raise UsageError(f"{printable(str(path))}: an entry of `files` must be sha256, size and grows")
    return Written(entry["sha256"], entry["size"], entry["grows"])


def _of_checkpoint(folder: Path, name: str) -> dict[str, Written]:
    """The files listed in the manifest of a checkpoint in a folder, relative to the folder."""
    manifest = read_manifest(folder / name)
    if manifest is None:
        raise UsageError(f"{printable(str(folder / name))} has no {MANIFEST} any more")
    return {
        f"{name}/{each}".lstrip("/"): Written(record.sha256, record.size)
        for each, record in records_of(manifest).items()
    }


def _check(folder: Path, records: Mapping[str, Written], marks: tuple[str, ...], parts: tuple[str, ...] = ()) -> None:
    """Refuse a folder with files that are neither records nor unchanged recorded files.

    Args:
        marks: files that tell whose the folder is.
        parts: folders in it that may be empty.
    """
    expected = {*records, *marks}
    folders = {*parts, *(parent.as_posix() for each in expected for parent in Path(each).parents)}
    foreign: list[str] = []
    known: list[str] = []
    for name, is_folder in _walk(folder):
        if is_folder:
            # An empty folder that nobody asked for is somebody's too.
            foreign += [] if name in folders or any((folder / name).iterdir()) else [name]
        elif name in records:
            known.append(name)
        elif name not in marks:
            foreign.append(name)
    total = sum(max(0, records[name].size) for name in known)
    with bar("looking at the earlier output", total, unit="bytes") as progress:
        changed = []
        for name in known:
            changed += [name] if _problem(folder, name, records[name]) else []
            progress.advance(max(0, records[name].size))
    _refuse(folder, changed, foreign)


def _refuse(folder: Path, changed: list[str], foreign: list[str]) -> None:
    names = [printable(str(folder / name)) for name in sorted([*changed, *foreign])]
    if not names:
        return
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    what = ", ".join(names[:_SHOWN]) + more
    be = "are" if len(names) > 1 else "is"
    reason = "not written by weight_edit" if not changed else "not as weight_edit wrote it"
    if changed and foreign:
        reason = "not by weight_edit or not as it wrote it"
    raise UsageError(f"{what} {be} {reason}, so that nothing is overwritten; move it away, or choose another output")


def _problem(folder: Path, name: str, record: Written | None) -> bool:
    """Whether a file differs from its record or has none."""
    if record is None:
        return True
    try:
        with open_regular(folder / name) as file:
            stamp = Stamp.of(file)
            if record.unfinished:
                return False
            if record.grows:
                return (
                    stamp.size < record.size
                    or digest_of(file, record.size, name) != record.sha256
                    or not all(
                        _LOGGED.match(line) for line in read_exactly(file, stamp.size - record.size, name).splitlines()
                    )
                )
            if stamp.size != record.size:
                return True
            if stamp not in _known:
                _known[stamp] = digest_of(file, stamp.size, name)
            return _known[stamp] != record.sha256
    except UsageError:
        # A link, a device, or not to be read: no file that was written here.
        return True


def _walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """(relative path, is it a folder) of everything below a folder; links are not followed.

    Leftovers of an interrupted attempt of this package, and of files that it did not finish, are skipped.
    """
    names = [""]
    while names:
        prefix = names.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                name = f"{prefix}/{entry.name}".lstrip("/")
                is_folder = stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)
                if is_left_over(folder / name) if is_folder else is_unfinished(folder / name):
                    continue
                yield name, is_folder
                if is_folder:
                    names.append(name)
