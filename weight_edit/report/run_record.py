"""A run's folder, or that of a search alone, as the page reads it: nothing in it is trusted, nothing required."""

import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import meant, printable, read_json, read_whole
from weight_edit.directions.file import read_metadata
from weight_edit.errors import UsageError
from weight_edit.report.values import at, entries, rows, text, whole
from weight_edit.utils.bounded_yaml import MAX_TEXT, parse_yaml
from weight_edit.utils.json import parse_json

RUN, SEARCH = "run.json", "search.json"
_MOST, _MOST_LINES, _LONGEST_LINE = 200_000_000, 20_000, 1_000_000
_OF_A_RUN = ("weight_edit", "recipe", "steps", "summary")
"""Keys of which a run's record has some; others' files may be called alike."""

_MOST_STUDIES, _MOST_POINTS = 40, 50


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a folder keeps of a run.

    Attributes:
        path: the folder.
        state: `run.json`; of a search alone empty.
        search: `search.json`, where there is one.
        missing: sentences on what is there and cannot be read.
    """

    path: Path
    state: Mapping[str, Any]
    search: Mapping[str, Any]
    missing: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: str | Path) -> "RunRecord":
        """The record of a folder.

        Raises:
            UsageError: there is no such folder, it holds neither a run nor a search, or its record is no JSON.
        """
        path = Path(folder)
        name = printable(str(path))
        try:
            is_folder = path.is_dir()
        except (OSError, ValueError):
            is_folder = False
        if not is_folder:
            raise UsageError(
                f"there is no folder {name}{_run_around(path) or '; give one that `run` or `search` made'}"
            )
        found = {each: _record(path, each) for each in (RUN, SEARCH)}
        if found[RUN] is None and found[SEARCH] is None:
            raise UsageError(f"{name} holds neither a run ({RUN}) nor a search ({SEARCH}){_run_around(path)}")
        record = cls(path=path, state=found[RUN] or {}, search=found[SEARCH] or {})
        if found[RUN] is not None:
            below = record.json("search/search.json")
            return cls(path=path, state=record.state, search=entries(below), missing=record.missing)
        return record

    @property
    def name(self) -> str:
        """The folder's own name."""
        return printable(self.path.resolve().name) or "run"

    @property
    def summary(self) -> Mapping[str, Any]:
        """The run's summary; of an unfinished run, what its steps gave so far."""
        found = entries(self.state.get("summary"))
        if found:
            return found
        steps = entries(self.state.get("steps"))
        known = {"baseline": "baseline", "edited": "evaluate", "verification": "verify", "direction": "find"}
        return {name: result for name, step in known.items() if (result := at(steps, f"{step}.result"))}

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe that was carried out."""
        return entries(self.state.get("recipe"))

    @property
    def baseline(self) -> Mapping[str, Any]:
        """The evaluation of the base."""
        return entries(self.summary.get("baseline"))

    @property
    def edited(self) -> Mapping[str, Any]:
        """The evaluation of the edited model."""
        return entries(self.summary.get("edited"))

    @property
    def verification(self) -> Mapping[str, Any]:
        """What was verified."""
        return entries(self.summary.get("verification"))

    @cached_property
    def answers(self) -> Mapping[str, list[dict[str, Any]]]:
        """The answers of `baseline` and `edited`, in their order."""
        found = {}
        for name, measured in (("baseline", self.baseline), ("edited", self.edited)):
            file = f"answers/{name}.jsonl"
            found[name] = self.lines(file)
            counts = [whole(at(each, "count")) or 0 for each in entries(measured.get("sets")).values()]
            asked = min(sum(counts), _MOST_LINES)
            if len(found[name]) < asked:
                self.missing.append(f"Of {file}, {len(found[name])} of {asked} answers are there.")
        return found

    @cached_property
    def studies(self) -> Mapping[str, Path]:
        """The folders of studies, by their names."""
        try:
            found = sorted(each for each in (self.path / "studies").iterdir() if each.is_dir())
        except OSError:
            return {}
        return {each.name: each for each in sorted(found, key=_numbered)[:_MOST_STUDIES]}

    @cached_property
    def directions(self) -> Mapping[str, Any]:
        """What `find` kept beside the direction that was taken."""
        inside = self.inside("directions.safetensors")
        if inside is None:
            return {}
        try:
            return entries(read_metadata(inside))
        except UsageError as error:
            self.missing.append(f"The record of the directions cannot be read: {error}.")
            return {}

    def table(self, study: str, name: str) -> list[dict[str, Any]]:
        """The rows of a study's table; empty where it has none."""
        return rows(self.json(f"studies/{study}/{name}.json"))

    def json(self, name: str) -> Any:
        """The content of a JSON file of the folder; None where it is missing or malformed."""
        inside = self.inside(name)
        if inside is None:
            return None
        try:
            return read_json(read_whole(inside, _MOST), name, most=_MOST)
        except UsageError as error:
            self.missing.append(f"A file could not be read, and the page does without it: {error}.")
            return None

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The objects of a file with one on each line; what is malformed is left out."""
        inside = self.inside(name)
        if inside is None:
            return []
        try:
            raw = bytes(read_whole(inside, _MOST))
        except UsageError as error:
            self.missing.append(f"A file could not be read, and the page does without it: {error}.")
            return []
        found, bad = [], 0
        for line in raw.split(b"\n")[:_MOST_LINES]:
            if not line.strip():
                continue
            try:
                row = parse_json(line.decode("utf-8")) if len(line) <= _LONGEST_LINE else None
            except (ValueError, UnicodeDecodeError):
                row = None
            if isinstance(row, dict):
                found.append(row)
            else:
                bad += 1
        if bad:
            self.missing.append(f"Of {printable(name)}, {bad} lines could not be read and are left out.")
        return found

    def inside(self, name: str) -> Path | None:
        """The path of a regular file of the folder; None where it is missing or leads out of it."""
        return _inside(self.path, name)

    @property
    def model(self) -> str:
        """The model's name; of a local folder the folder's own."""
        named = self.model_argument
        local = named.startswith(("/", "./", "../", "~")) or "\\" in named
        return named.replace("\\", "/").rstrip("/").rpartition("/")[2] or named if local else named

    @property
    def model_argument(self) -> str:
        """The model as a command takes it."""
        of_points = text(at(next(iter(self.points.values()), None), "model"))
        return text(self.recipe.get("model")) or text(at(self.baseline, "model")) or of_points or "?"

    @cached_property
    def points(self) -> Mapping[str, Mapping[str, Any]]:
        """The recipes of the points of a search alone, by their files; what is malformed is empty."""
        found: dict[str, Mapping[str, Any]] = {}
        if self.state:
            return found
        try:
            names = sorted(each.name for each in (self.path / "points").iterdir() if each.suffix == ".yaml")
        except OSError:
            return found
        for name in names[:_MOST_POINTS]:
            inside = self.inside(f"points/{name}")
            try:
                content = "" if inside is None else bytes(read_whole(inside, MAX_TEXT)).decode("utf-8")
                found[name] = entries(parse_yaml(content))
            except (UsageError, ValueError):
                found[name] = {}
        return found


def argument(said: str) -> str:
    """A path, or a model's name, as it is typed into a shell: one word, and no option."""
    shown = printable(said, len(said) * 10)
    return shlex.quote(f"./{shown}" if shown.startswith("-") else shown)


def _inside(folder: Path, name: str) -> Path | None:
    """The path of a regular file of a folder; None where it is missing or leads out of it."""
    try:
        real = (folder / name).resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
        return real if regular and real.is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError, ValueError):
        return None


def _record(folder: Path, name: str) -> dict[str, Any] | None:
    path = _inside(folder, name)
    if path is None:
        return None
    shown = str(folder / name)
    try:
        found = read_json(read_whole(path, _MOST), shown, most=_MOST)
    except UsageError as error:
        raise UsageError(f"{error}; the record is cut off or was changed, and the run has to be made again") from error
    if not isinstance(found, dict) or (name == RUN and not any(key in found for key in _OF_A_RUN)):
        raise UsageError(f"{printable(shown)} is no record of a run; give a folder that `run` or `search` made")
    return found


def _numbered(folder: Path) -> tuple[int, str]:
    first = folder.name.partition("-")[0]
    return (int(first) if first.isdecimal() and len(first) < 9 else 0, folder.name)


def _run_around(path: Path) -> str:
    """The end of an error that names the folder around `path`, its record or its model, where that is a run's."""
    return meant(path.parent) if any((path.parent / name).is_file() for name in (RUN, SEARCH)) else ""
