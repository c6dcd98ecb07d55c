"""A run's folder: recipe, log, results by step, the files it owns, and finished steps."""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from weight_edit.checkpoint.files import printable, read_json, read_whole
from weight_edit.checkpoint.manifest import MANIFEST, sha256
from weight_edit.checkpoint.rewrite.output import absolute, check_output, remove_own, replace_folder
from weight_edit.checkpoint.rewrite.ownership import (
    LOG,
    RUN,
    Written,
    check_part,
    files_below,
    with_unfinished,
    written,
)
from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.checkpoint.whole_file import append_line, check_writable, write_whole
from weight_edit.errors import UsageError
from weight_edit.recipe.recipe import Recipe
from weight_edit.redaction import redacted
from weight_edit.runs.figures import figures_of
from weight_edit.runs.folder_lock import FolderLock
from weight_edit.utils.json import json_safe
from weight_edit.utils.progress import announce
from weight_edit.utils.progress_events import emit_step
from weight_edit.version import __version__

RECIPE = "recipe.yaml"
STEPS = {
    "baseline": "answers and losses of the model as it is",
    "study": "an experiment under hooks; no weights are written",
    "directions": "those that the recipe brings along",
    "find": "looking for the direction that carries the behaviour",
    "search": "looking for the best edit: cheap scores first, judged answers of the best",
    "bake": "writing the edited checkpoint",
    "verify": "checking every byte, what is left of the direction, and hooks against weights",
    "evaluate": "the same of the edited model",
    "geometry": "the stream of these prompts before and after, along the direction and across it",
    "report": "the page of the run and its pictures",
}
"""Kind of step -> the line shown when it begins."""


class RunFolder:
    """The folder of one run; `run.json` is replaced atomically after every step.

    An earlier run that is to be replaced stays as it is until the new one is done: that is made beside it, in a folder
    with `.new` behind its name, and takes its place at the end.

    Attributes:
        path: the folder.
        goal: where it will be when the run is done.
        lock: held until `close`.
        state: what `run.json` holds: version, status, recipe, steps, what the finished model was made from, summary,
            under `files` what the run wrote and under `writing` what its steps are writing, see `ownership`.
    """

    def __init__(self, path: Path, goal: Path, state: dict[str, Any], lock: FolderLock) -> None:
        self.path = path
        self.goal = goal
        self.state = state
        self.lock = lock

    @classmethod
    def open(cls, path: str | Path, recipe: Recipe, *, source: Path, resume: bool, overwrite: bool) -> "RunFolder":
        """The folder of a new run, of an earlier one (`resume`), or of a replacement (`overwrite`).

        Args:
            source: the folder of the model that is read, which must not be in the run's folder or around it.

        Raises:
            UsageError: the folder is not empty and neither was asked for, or there is nothing to resume; something in
                it is not the run's own; or another run is going on in it.
        """
        goal = Path(path)
        folder = _resumed(goal, source) if resume else _begun(goal, source, overwrite)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
        lock = FolderLock(folder)
        try:
            return cls._opened(folder, goal, recipe, resume, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def _opened(cls, folder: Path, goal: Path, recipe: Recipe, resume: bool, lock: FolderLock) -> "RunFolder":
        """The folder of a run that nobody else is in, with its recipe written."""
        earlier: dict[str, Any] = _read(folder / RUN) if resume else {}
        content = recipe.model_dump(mode="json")
        state = {
            "weight_edit": __version__,
            "status": "running",
            "recipe": content,
            "steps": earlier.get("steps", {}),
            "finished": earlier.get("finished"),
            "summary": None,
            "files": earlier.get("files", {}),
            "writing": earlier.get("writing", []),
            **({} if folder == goal else {"replaces": goal.name}),
        }
        run = cls(folder, goal, state, lock)
        run.check_own(RECIPE, LOG)
        write_whole(folder / RECIPE, yaml.safe_dump(content, sort_keys=False))
        run.record(RECIPE)
        # First the log, which the record then lists: a run that ends in its first step is its own, too.
        run.log(f"weight_edit {__version__}: {'resumed' if resume else 'started'}")
        run.save()
        return run

    def close(self) -> None:
        """Let other runs have the folder."""
        self.lock.release()

    def step(
        self, name: str, inputs: Any, files: tuple[str, ...], work: Callable[[], Any], working: Iterable[str] = ()
    ) -> Any:
        """Do a step, or return its earlier result if inputs and files are unchanged.

        Args:
            name: of the step.
            inputs: anything JSON that the result depends on.
            files: what the step leaves in the folder, relative; their content is checked before reuse.
            work: does it and returns a JSON-ready result.
            working: further files that it writes as it goes on.
        """
        earlier = self.state["steps"].get(name)
        if self.is_done(name, inputs, files):
            self.log(f"{name}: unchanged, not done again")
            emit_step(name, "kept", seconds=earlier.get("seconds"), figures=figures_of(name, earlier["result"]))
            return earlier["result"]
        self.check_own(*files)
        self.log(f"{name}: started")
        emit_step(name, "begun")
        # Known as the run's own before they are there: a process that is killed says nothing afterwards.
        writing = {*files, *working}
        self.state["writing"] = sorted({*self.state["writing"], *writing})
        self.save()
        announce(f"{name}: {STEPS.get(name.split()[0], '...')}")
        began = time.monotonic()
        try:
            result = work()
        except BaseException:
            emit_step(name, "failed", seconds=round(time.monotonic() - began, 3))
            with suppress(OSError, UsageError):
                self._note_written(writing)
            raise
        seconds = round(time.monotonic() - began, 3)
        digests = {file: _digest(self.path / file) for file in files}
        self.state["steps"][name] = {"key": _key(inputs), "seconds": seconds, "files": digests, "result": result}
        self._note_written(writing)
        self.record(*files)
        self.save()
        self.log(f"{name}: done in {seconds:.1f} s")
        emit_step(name, "done", seconds=seconds, figures=figures_of(name, result))
        return result

    def _note_written(self, names: Collection[str]) -> None:
        """Record those of a step's files that are there, as they are: it writes them no more."""
        self.record(*(each for each in names if (self.path / each).is_file() and not (self.path / each).is_symlink()))
        self.state["writing"] = [each for each in self.state["writing"] if each not in names]
        self.save()

    def is_done(self, name: str, inputs: Any, files: tuple[str, ...]) -> bool:
        """Whether an earlier attempt has done a step with these inputs, and its files are as it left them."""
        earlier = self.state["steps"].get(name)
        return (
            earlier is not None
            and earlier.get("key") == _key(inputs)
            and self._same_files(earlier.get("files", {}), files)
        )

    def forget(self, *names: str) -> None:
        """Drop the results of steps, so that they run again."""
        for name in names:
            self.state["steps"].pop(name, None)

    def save(self) -> None:
        """Write `run.json`."""
        if (self.path / LOG).exists():
            self.state["files"][LOG] = asdict(written(self.path / LOG, grows=True))
        write_whole(self.path / RUN, json.dumps(json_safe(self.state), indent=2, allow_nan=False) + "\n")

    def log(self, line: str) -> None:
        """Add a time-stamped line to `log.txt`."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        append_line(self.path / LOG, f"{stamp} {redacted(' '.join(line.splitlines()))}")

    @property
    def records(self) -> dict[str, Written]:
        """The records of the run's files, by name; files in checkpoints are in their manifests."""
        finished = {name: Written(**entry) for name, entry in self.state["files"].items()}
        return with_unfinished(finished, self.state["writing"])

    def record(self, *names: str) -> None:
        """Record files or folders, in their present state, as the run's own."""
        kept = self.state["files"]
        for name in names:
            for each in [each for each in kept if each == name or each.startswith(f"{name}/")]:
                del kept[each]
            self.state["writing"] = [
                each for each in self.state["writing"] if each != name and not each.startswith(f"{name}/")
            ]
            path = self.path / name
            if not path.is_dir():
                kept[name] = asdict(written(path))
            elif not (path / MANIFEST).is_file():
                kept |= {each: asdict(written(self.path / each)) for each in files_below(self.path, name)}

    def check_own(self, *names: str) -> None:
        """Refuse to replace files or folders that changed or are not the run's.

        Raises:
            UsageError: naming what is not, or is not as it was written.
        """
        for name in names:
            check_part(self.path, name, self.records)

    def remove(self, *names: str) -> None:
        """Remove checkpoints of the run, where they exist.

        Raises:
            UsageError: as `check_own`.
        """
        for name in names:
            remove_own(self.path / name)

    def rename(self, old: str, new: str) -> None:
        """Rename a checkpoint of the run, replacing one of the new name.

        Raises:
            UsageError: as `check_own`.
        """
        if (self.path / new).exists():
            replace_folder(self.path / old, self.path / new)
        else:
            (self.path / old).rename(self.path / new)

    def take_place(self) -> None:
        """Move the finished run into the place of the run that it replaces.

        Raises:
            UsageError: something in that is not its own any more; both are as they were.
        """
        if self.path != self.goal:
            replace_folder(self.path, absolute(self.goal))
            self.path = self.goal
            del self.state["replaces"]
            self.save()

    @property
    def whereabouts(self) -> str:
        """The end of an error message that tells where an unfinished replacement is; else empty."""
        if self.path == self.goal:
            return ""
        return f"; {self.goal} is as it was, and this run is in {self.path} (`resume` goes on with it)"

    def _same_files(self, earlier: dict[str, str], files: tuple[str, ...]) -> bool:
        return set(earlier) == set(files) and all(
            (self.path / name).exists() and _digest(self.path / name) == digest for name, digest in earlier.items()
        )


def check_run_folder(path: str | Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that no run can be made or resumed in, before the model is looked for.

    Raises:
        UsageError: as `RunFolder.open`, but for what has to do with the model's place.
    """
    if not resume:
        _checked_place(Path(path), overwrite)
        return
    place = absolute(Path(path))
    beside = _beside(place)
    folder = beside if _is_unfinished(beside, place) else Path(path)
    _read(folder / RUN)
    check_writable(folder, "copy the run to where it can be gone on with")


def _checked_place(goal: Path, overwrite: bool, source: Path | None = None) -> Path:
    """The place of a run that is made anew, as `check_output` gives it.

    Raises:
        UsageError: as `check_output`; or there is a run that goes on, or one that can be gone on with.
    """
    if (goal / RUN).is_file() and not goal.is_symlink():
        # Not while it is being made.
        FolderLock(goal).release()
        if not overwrite and _is_begun(goal):
            raise UsageError(
                f"{printable(str(goal))} holds a run that is not finished: go on with `resume=True`, which keeps the "
                "steps that are done; or choose another `out`, or pass `overwrite=True`",
                option=("resume", "out", "overwrite"),
            )
    return check_output(goal, overwrite, source=source)


def _is_begun(goal: Path) -> bool:
    """Whether a folder holds a run that has not come to its end."""
    try:
        return bool(_read(goal / RUN).get("status") != "done")
    except UsageError:
        return False


def has_run(goal: Path) -> bool:
    """Whether there is a run to resume in a folder, or beside it."""
    return any((folder / RUN).is_file() for folder in (goal, _beside(goal)))


def has_model(goal: Path) -> bool:
    """Whether the run under way in a folder, or beside it, has its edited model under its final name."""
    beside = _beside(goal)
    try:
        return bool(_read((beside if beside.is_dir() else goal) / RUN).get("finished"))
    except UsageError:
        return False


def _begun(goal: Path, source: Path, overwrite: bool) -> Path:
    """The place of a new run: its own folder, or a folder beside the run to replace."""
    place = _checked_place(goal, overwrite, source)
    if not (place.is_dir() and any(place.iterdir())):
        return goal
    beside = _beside(place)
    if _is_unfinished(beside, place):
        # Not while it is being made.
        FolderLock(beside).release()
        remove_own(beside)
        announce(f"removed {beside}, which an interrupted or failed run left; resume would have gone on with it")
    check_output(beside, source=source)
    return beside


def _resumed(goal: Path, source: Path) -> Path:
    """The place of a run to resume: its own folder, or that beside the run to replace."""
    place = absolute(goal)
    beside = _beside(place)
    folder = beside if _is_unfinished(beside, place) else goal
    if folder.is_symlink():
        raise UsageError(f"{folder} is a link; give the folder itself as output")
    found = _read(folder / RUN)
    if source.is_relative_to(folder.resolve()):
        raise UsageError(f"the model lies in the run's own folder {folder}; choose another `out`", option="out")
    if not isinstance(found.get("files"), dict):
        raise UsageError(
            f"{folder / RUN} is of an earlier version and does not list what it wrote; choose another `out`",
            option="out",
        )
    return folder


def _beside(place: Path) -> Path:
    return place.with_name(f"{place.name}.new")


def _is_unfinished(folder: Path, goal: Path) -> bool:
    """Whether a folder holds an unfinished replacement of the run in `goal`."""
    if folder.is_symlink() or not (folder / RUN).is_file():
        return False
    try:
        return bool(_read(folder / RUN).get("replaces") == goal.name)
    except UsageError:
        return False


def _key(inputs: Any) -> str:
    """What tells whether a step's result is of these inputs and of this version."""
    return hashlib.sha256(json.dumps([__version__, inputs], sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    """A file's SHA-256, or a folder's fingerprint: models are large, and verified anyway."""
    return fingerprint(path) if path.is_dir() else sha256(path)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path.parent} holds no run to resume (no {RUN}); leave out `resume`", option="resume")
    try:
        found = read_json(read_whole(path), str(path))
    except UsageError as error:
        raise UsageError(
            f"{error}; leave out `resume` and pass `overwrite=True`", option=("resume", "overwrite")
        ) from error
    steps = found.get("steps") if isinstance(found, dict) else None
    if not isinstance(steps, dict) or not all(isinstance(step, dict) for step in steps.values()):
        raise UsageError(f"{path} is not a run of ours; leave out `resume`", option="resume")
    return found
