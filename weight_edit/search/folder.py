"""The folder of a search: its journal, what `find` left, and the points that came out of it as recipes."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import printable, read_json, read_whole
from weight_edit.checkpoint.rewrite.output import check_output, staged
from weight_edit.checkpoint.rewrite.ownership import Written, below, check_files, files_below, written
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import UsageError
from weight_edit.utils.json import json_safe
from weight_edit.version import __version__

RESULT, JOURNAL, FINDS, POINTS = "search.json", "journal", "finds", "points"
"""Names in the folder."""

JOURNAL_FILE = "journal.log"
JOURNAL_LOCK = f"{JOURNAL_FILE}.lock"
"""The journal's file in its folder, and the lock beside it."""

_PATIENCE = 5.0
"""Seconds in which another process of the same search is done with what it writes into the folder."""


class SearchOutput:
    """The folder of one search; processes that share the search may share it.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(
        cls, path: str | Path, *, source: Path | None, resume: bool = False, overwrite: bool = False
    ) -> "SearchOutput":
        """The folder of a new search, or of an earlier one.

        Args:
            source: the folder of the model that is read, which must not be in this one or around it.
            resume: go on with what is there; where nothing is, begin.
            overwrite: replace what an earlier search left there. Its files are replaced one by one when there is
                something new; nothing else in the folder is touched.

        Raises:
            UsageError: something is there and neither was asked for, or it is no search.
        """
        place = Path(path)
        earlier = check_search_folder(place, source=source, resume=resume, overwrite=overwrite)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{printable(str(place))} cannot be made: {error.strerror}") from error
        output = cls(place)
        if not (earlier and resume):
            output.write({"status": "running"})
        return output

    @property
    def journal(self) -> Path:
        """The folder of the journal."""
        return self.path / JOURNAL

    def find(self, name: str) -> Path:
        """The folder that a `find` keeps what it found in."""
        folder = self.path / FINDS
        folder.mkdir(exist_ok=True)
        return folder / name

    def write(self, document: Mapping[str, Any]) -> None:
        """Write the record of the search, with that of its points' files."""
        earlier = _record(self.path) or {}
        content = {"weight_edit": __version__, **document, "files": earlier.get("files", {})}
        write_whole(self.path / RESULT, json.dumps(json_safe(content), indent=2, allow_nan=False) + "\n")

    def write_points(self, savers: Mapping[str, Callable[[Path], object]]) -> dict[str, Path]:
        """Write the recipes of points in place of those of an earlier search; the paths by name.

        Args:
            savers: name of the file -> what writes it to a path.

        Raises:
            UsageError: a file there is not as it was written, or not ours.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._replace_points(savers)
                break
            except UsageError:
                # A process that shares the folder writes the same points just now.
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        return {name: self.path / POINTS / name for name in savers}

    def _replace_points(self, savers: Mapping[str, Callable[[Path], object]]) -> None:
        record = _record(self.path) or {}
        earlier = below(POINTS, {name: Written(**entry) for name, entry in record.get("files", {}).items()})
        with staged(self.path / POINTS, overwrite=True, own=lambda old: check_files(old, earlier)) as folder:
            for name, save in savers.items():
                save(folder / name)
        record["files"] = {name: asdict(written(self.path / name)) for name in files_below(self.path, POINTS)}
        write_whole(self.path / RESULT, json.dumps(json_safe(record), indent=2, allow_nan=False) + "\n")


def earlier_extent(path: Path) -> dict[str, Any]:
    """How far the search in a folder was to go, see `SearchRequest.extent`; empty where nothing says it."""
    extent = (_record(path) or {}).get("extent")
    return extent if isinstance(extent, dict) else {}


def check_search_folder(
    path: Path, *, source: Path | None = None, resume: bool = False, overwrite: bool = False
) -> bool:
    """Refuse a folder that no search can be made or gone on with in; returns whether it holds an earlier one.

    Args:
        path, source, resume, overwrite: as in `SearchOutput.open`.

    Raises:
        UsageError: as `SearchOutput.open`.
    """
    if resume:
        _await_record(path)
    if not (path.is_dir() and any(path.iterdir())):
        try:
            check_output(path, source=source)
        except UsageError:
            if not (resume and path.is_dir() and any(path.iterdir())):
                raise
            # Another process has begun it in this moment.
            return check_search_folder(path, source=source, resume=resume, overwrite=overwrite)
        return False
    if _record(path) is None:
        raise UsageError(
            f"{printable(str(path))} is not empty and holds no search ({RESULT}); choose another `out`",
            option="out",
        )
    if not (resume or overwrite):
        raise UsageError(
            f"{printable(str(path))} holds an earlier search; `resume=True` goes on with it, `overwrite=True` "
            "begins anew",
            option=("resume", "overwrite"),
        )
    return True


def _await_record(path: Path) -> None:
    """Wait while another process is just writing a folder's first record, for some seconds at most."""
    until = time.monotonic() + _PATIENCE
    while path.is_dir() and time.monotonic() < until:
        names = [each.name for each in path.iterdir()]
        if not names or not all(name.startswith(".weight_edit-") for name in names):
            return
        time.sleep(0.01)


def _record(folder: Path) -> dict[str, Any] | None:
    """What the folder says of itself; None where it is no search's.

    Raises:
        UsageError: its record cannot be read.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    found = read_json(read_whole(path), str(path))
    if not isinstance(found, dict) or "weight_edit" not in found or not isinstance(found.get("files"), dict):
        raise UsageError(f"{printable(str(path))} is not of a search; choose another `out`", option="out")
    return found
