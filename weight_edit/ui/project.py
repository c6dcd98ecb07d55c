"""A project: a folder with what was chosen on the page, the jobs that were started, and what they wrote."""

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import meant, printable
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.directions.file import read_candidates, read_metadata, read_rows
from weight_edit.directions.take import can_be_taken, take_candidate
from weight_edit.edits.changes import RuntimeOnly
from weight_edit.errors import UsageError, WeightEditError
from weight_edit.plan.plan import not_bakeable, parse_layers
from weight_edit.plan.step import EditStep
from weight_edit.ui.jobs import Job, read_jobs
from weight_edit.ui.opened_run import read_recipe, read_summary, settings_of
from weight_edit.ui.settings import Settings
from weight_edit.ui.wording import flagged
from weight_edit.utils.json import parse_json

FILE, JOBS = "project.json", "jobs"
_MODEL = "model"
"""The folder of the edited model in a run's."""

_POINTS = "points"
"""The folder of a search's points."""

_MOST_DIRECTIONS = 1 << 30


_OPENED = "opened"
"""The name of what a run that was opened has found; a job's begins with its number."""


@dataclass(frozen=True)
class Found:
    """A direction that was found, with its candidates.

    Attributes:
        name: of the find, or of the run that was opened.
        out: its directions file.
        told: what was said of it: the find's document, or what the file says of itself.
    """

    name: str
    out: Path
    told: Mapping[str, Any]

    @property
    def of_run(self) -> bool:
        """Whether it is of the run that was opened, and not of a find of this project."""
        return self.name == _OPENED


@dataclass(frozen=True)
class Project:
    """A project as its folder says; it is read anew for each look.

    Attributes:
        folder: of the project, absolute.
        settings: the page's fields.
        opened: a run of the command line that was opened in it; None else.
        jobs: in the order in which they were started.
    """

    folder: Path
    settings: Settings
    opened: Path | None = None
    jobs: tuple[Job, ...] = field(default=())

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def running(self) -> bool:
        """Whether any of its jobs is at work."""
        return any(job.state == "running" for job in self.jobs)

    def latest(self, *verbs: str, where: Callable[[Job], bool] = lambda _: True) -> Job | None:
        """The job of these verbs that was started last; None where there is none."""
        return next((job for job in reversed(self.jobs) if job.verb in verbs and where(job)), None)

    def next_out(self, name: str, ending: str = "") -> Path:
        """A path in the project that is free, with the number of the next job."""
        return self.folder / f"{name}-{self._number}{ending}"

    def next_job(self, verb: str) -> Path:
        """The folder of the next job."""
        return self.folder / JOBS / f"{self._number:03d}-{verb}"

    @cached_property
    def _number(self) -> int:
        """Above all that folders of jobs and their outputs have, those that are no jobs (any more) among them."""
        names = [path.name for path in (self.folder / JOBS).glob("*")]
        taken = [re.match(r"(\d{1,9})-", name) for name in names]
        taken += [re.fullmatch(r"[a-z]+-(\d{1,9})(\..*)?", path.name) for path in self.folder.glob("*")]
        return 1 + max((int(found[1]) for found in taken if found), default=0)

    @cached_property
    def directions(self) -> Path | None:
        """The directions file that was found last on the model that is chosen, or that of a run of it that was opened.

        Another model may have the width of its own, so that nothing else would tell them apart.
        """
        found = self.found
        if found is None:
            return None
        return found.out if self.candidate is None else self._taken(found.out, self.candidate)

    @cached_property
    def found(self) -> Found | None:
        """What was found last on the model that is chosen, or what a run of it that was opened has found."""
        find = self.find
        if find is not None and find.out is not None and find.out.is_file():
            return Found(find.name, find.out, find.result or {})
        kept = self.folder / f"{_OPENED}.safetensors"
        recipe = None if self.opened is None else read_recipe(self.opened)
        if recipe is None or settings_of(recipe).model != self.settings.model or not kept.is_file():
            return None
        return Found(_OPENED, kept, _told_by(kept, kept.stat().st_mtime_ns))

    @cached_property
    def find(self) -> Job | None:
        """The find that was done last on the model that is chosen."""
        return self.latest("find", where=lambda job: job.state == "done" and self._is_of_model(job))

    @property
    def blocks(self) -> int:
        """How many blocks the model has, as the file of what was found tells; 0 where it is not known.

        Its scores do not: a method that chooses the place by itself has them of that place alone.
        """
        out = None if self.found is None else self.found.out
        return 0 if out is None or not out.is_file() else _blocks(out, out.stat().st_mtime_ns)

    @cached_property
    def candidates(self) -> Mapping[str, Mapping[str, Any]]:
        """The candidates that may be taken in place of the find's own choice, by names that no other find's have."""
        found = self.found
        if found is None:
            return {}
        scores = found.told.get("scores")
        listed = [each for each in scores if isinstance(each, dict)] if isinstance(scores, list) else []
        own = found.told.get("layer"), found.told.get("position")
        usable = [
            each
            for each in listed
            if isinstance(each.get("layer"), int)
            and isinstance(each.get("position"), int | None)
            and each.get("norm")
            and (each["layer"], each["position"]) != own
        ]
        if not usable or not _can_be_taken(found.out, found.out.stat().st_mtime_ns):
            return {}
        return {f"{found.name}:{each['layer']}:{each['position']}": each for each in usable}

    @property
    def candidate(self) -> Mapping[str, Any] | None:
        """The candidate that the user took; None for the find's own choice."""
        return self.candidates.get(self.settings.candidate)

    @property
    def place(self) -> tuple[object, object]:
        """Layer and position of the direction that is taken of a find."""
        taken = self.candidate or (self.found.told if self.found is not None else {})
        return taken.get("layer"), taken.get("position")

    def _taken(self, found: Path, candidate: Mapping[str, Any]) -> Path:
        """The directions file of another candidate, beside the find's; written when it is first asked for."""
        path = taken_path(found, candidate)
        if not path.is_file():
            take_candidate(found, path, layer=candidate["layer"], position=candidate["position"])
        return path

    def _is_of_model(self, job: Job) -> bool:
        return self.settings.model in job.words

    @cached_property
    def search(self) -> Job | None:
        """The search that was done last on the model that is chosen, or the last look at its front."""
        return self.latest("search", where=lambda job: job.state == "done" and self._is_of_model(job))

    @cached_property
    def front(self) -> tuple[Mapping[str, Any], ...]:
        """The points of the search that was done last, by rising damage."""
        front = self.search.result.get("front") if self.search is not None and self.search.result else None
        return tuple(each for each in front if isinstance(each, dict)) if isinstance(front, list) else ()

    @property
    def picked(self) -> str:
        """The digest of the point that is picked, by the user or by the search's rule; empty where there is none."""
        digests = [str(each.get("digest")) for each in self.front]
        if self.settings.point in digests:
            return self.settings.point
        picked = self.search.result.get("picked") if self.search is not None and self.search.result else None
        point = picked.get("point") if isinstance(picked, dict) else None
        digest = point.get("digest") if isinstance(point, dict) else None
        return digest if isinstance(digest, str) else ""

    @property
    def point(self) -> Path | None:
        """The recipe of the point that is picked; None where none is."""
        out = self.search.out if self.search is not None else None
        if out is None or not re.fullmatch(r"[0-9a-f]{6,64}", self.picked):
            return None
        return next((path for path in sorted((out / _POINTS).glob(f"*-{self.picked}.yaml"))), None)

    @cached_property
    def run(self) -> Path | None:
        """The folder of the run that was done last, or of the one that was opened."""
        done = self.latest("run", where=lambda job: job.state == "done" and job.out is not None)
        return done.out if done is not None else self.opened

    @cached_property
    def baked_by(self) -> Job | None:
        """The job that made an edited model last; None where there is none."""
        return self.latest("bake", "run", where=lambda job: job.state == "done" and job.out is not None)

    @cached_property
    def edited(self) -> Path | None:
        """The edited model that was made last; None where there is none."""
        done = self.baked_by
        if done is not None and done.out is not None:
            edited = done.out if done.verb == "bake" else done.out / _MODEL
        elif self.opened is not None:
            edited = self.opened / _MODEL
        else:
            return None
        return edited if edited.is_dir() else None

    @cached_property
    def run_summary(self) -> Mapping[str, Any]:
        """What the run says of itself; empty where there is none."""
        return {} if self.run is None else read_summary(self.run)

    def saved(self, settings: Settings) -> "Project":
        """The project with other settings, which are kept."""
        if settings != self.settings:
            _write(self.folder, settings, self.opened)
        return Project(self.folder, settings, self.opened, self.jobs)


def taken_path(found: Path, candidate: Mapping[str, Any]) -> Path:
    """Where another candidate of a find is written: beside its directions file."""
    return found.with_name(f"{found.stem}-layer{candidate['layer']}-position{candidate['position']}.safetensors")


@lru_cache(maxsize=32)
def _told_by(path: Path, _: int) -> Mapping[str, Any]:
    """What a directions file says of itself, empty where it cannot be read; the second argument is as below."""
    try:
        return read_metadata(path)
    except UsageError:
        return {}


@lru_cache(maxsize=32)
def _can_be_taken(path: Path, _: int) -> bool:
    """Whether a find's other candidates can be taken; the second argument tells a file from a later one there."""
    return can_be_taken(path)


@lru_cache(maxsize=32)
def _blocks(path: Path, _: int) -> int:
    """How many layers a directions file has candidates at; 0 where it has none."""
    try:
        candidates = read_candidates(path, read_rows(path).rows.shape[1])
    except UsageError:
        return 0
    return 0 if candidates is None else candidates.shape[1]


def edit_problem(project: Project) -> str:
    """Why the edit of the fields cannot be baked, before anything is run; empty where nothing is known."""
    settings, blocks = project.settings, project.blocks
    try:
        layers = parse_layers(settings.layers or None)
    except UsageError as error:
        return flagged(error)
    if layers and blocks and max(layers) >= blocks:
        return f"layers '{settings.layers}' are more than {settings.model} has: 0 to {blocks - 1}"
    path = project.directions
    if path is None or not path.is_file():
        return ""
    return _step_problem(path, path.stat().st_mtime_ns, settings.kind, settings.strength, layers)


@lru_cache(maxsize=32)
def _step_problem(path: Path, _: int, kind: str, strength: float, layers: frozenset[int] | None) -> str:
    """Why an edit of these directions makes no sense or cannot be baked; what would be measured before is dear."""
    try:
        step = EditStep(directions=read_rows(path), kind=kind, strength=strength, layers=layers)
        if isinstance(step.change, RuntimeOnly):
            raise not_bakeable(kind, step.change)
    except WeightEditError as error:
        return flagged(error)
    return ""


def read_project(folder: Path) -> Project | None:
    """The project of a folder; None where there is none."""
    try:
        entry = parse_json((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(entry, dict):
        return None
    chosen, opened = entry.get("settings"), entry.get("opened")
    settings = Settings().changed(chosen if isinstance(chosen, dict) else {})
    # What is in the file is what the fields show.
    settings = replace(settings, shown_for=settings.model)
    run = Path(opened) if isinstance(opened, str) else None
    return Project(folder.resolve(), settings, run, tuple(read_jobs(folder / JOBS)))


def list_projects(folder: Path) -> list[str]:
    """The names of the projects in a folder, the last used first."""
    try:
        found = [path for path in folder.iterdir() if (path / FILE).is_file() and not path.is_symlink()]
    except OSError:
        return []
    return [path.name for path in sorted(found, key=_used, reverse=True)]


def open_project(folder: Path, name: object) -> Project:
    """A project by its name; the last used where there is none of that name, and a new one where none can be read.

    Args:
        folder: with all projects.
        name: from a browser, so that it may be anything.
    """
    names = list_projects(folder)
    for each in [*(each for each in names if each == name), *names]:
        found = read_project(folder / each)
        if found is not None:
            return found
    return new_project(folder)


def named_project(folder: Path, name: object) -> Project:
    """A project by its name.

    Args:
        folder, name: see `open_project`.

    Raises:
        UsageError: there is none of that name, or it cannot be read.
    """
    known = next((each for each in list_projects(folder) if each == name), None)
    found = None if known is None else read_project(folder / known)
    if found is None:
        said = printable(str(name)) or "without a name"
        raise UsageError(f"the project {said} is gone, or cannot be read: load this page anew to choose another")
    return found


def new_project(folder: Path, title: str = "project", settings: Settings | None = None) -> Project:
    """A new project, named after its title and the day.

    Raises:
        UsageError: the folder cannot be written.
    """
    plain = re.sub(r"[^A-Za-z0-9._]+", "-", title)
    # Two dots in an address of the page are refused.
    plain = re.sub(r"\.\.+", ".", plain).strip("-.")[:40] or "project"
    stem = f"{plain}-{time.strftime('%Y-%m-%d')}"
    for number in range(1, 10_000):
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"{printable(str(folder))} cannot be written: {error.strerror}", option="folder"
            ) from error
        _write(path, settings or Settings(), None)
        return Project(path.resolve(), settings or Settings())
    raise UsageError(f"{printable(str(folder))} has too many projects of this day", option="folder")


def open_run(folder: Path, run: str) -> Project:
    """A new project of a run of the command line: its model, its directions, its edited model and its figures.

    Args:
        folder: with all projects.
        run: the run's folder; nothing in it is changed.

    Raises:
        UsageError: there is no run.
    """
    path = Path(os.path.expanduser(run.strip() or "."))  # noqa: PTH111 (an unknown user is no error)
    recipe = read_recipe(path)
    if recipe is None:
        around = "" if read_recipe(path.parent) is None else meant(path.parent)
        raise UsageError(f"{printable(run)} is no run: there is no run.json with a recipe in it{around}")
    project = new_project(folder, path.resolve().name, settings_of(recipe))
    _copy_directions(path / "directions.safetensors", project.folder / "opened.safetensors")
    _write(project.folder, project.settings, path.resolve())
    return Project(project.folder, project.settings, path.resolve())


def _copy_directions(source: Path, kept: Path) -> None:
    """Keep a run's directions in the project: a recipe's directions lie beside it."""
    try:
        found = source.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_DIRECTIONS:
            shutil.copyfile(source, kept)
    except OSError:
        # It can be looked at without them.
        return


def _used(folder: Path) -> float:
    """When a project was last used: its settings changed, or a job started."""
    times = [0.0]
    for path in (folder / FILE, folder / JOBS):
        try:
            times.append(path.stat().st_mtime)
        except OSError:
            continue
    return max(times)


def _write(folder: Path, settings: Settings, opened: Path | None) -> None:
    entry = {"version": 1, "settings": settings.to_dict(), "opened": None if opened is None else str(opened)}
    write_whole(folder / FILE, json.dumps(entry, indent=1))
