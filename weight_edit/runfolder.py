"""A run's folder: its recipe, log, results by step, and which steps need not be done again."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from weight_edit.checkpoint.fingerprint import fingerprint
from weight_edit.checkpoint.manifest import sha256
from weight_edit.checkpoint.output import check_output
from weight_edit.errors import UsageError
from weight_edit.finite import finite
from weight_edit.progress import announce
from weight_edit.recipe import Recipe
from weight_edit.version import __version__

RUN = "run.json"
LOG = "log.txt"
STEPS = {
    "baseline": "the model answers the test prompts as it is",
    "study": "an experiment under hooks; no weights are written",
    "find": "looking for the direction that carries the behaviour",
    "bake": "writing the edited checkpoint",
    "verify": "checking every byte, what is left of the direction, and hooks against weights",
    "evaluate": "the edited model answers the same prompts",
}
"""What a run says when a step begins."""


class RunFolder:
    """The folder of one run; `run.json` is written after every step, whole or not at all.

    Attributes:
        path: the folder.
        state: what `run.json` holds: version, status, recipe, steps, what the finished model was made from, summary.
    """

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path = path
        self.state = state

    @classmethod
    def open(cls, path: str | Path, recipe: Recipe, *, source: Path, resume: bool, overwrite: bool) -> "RunFolder":
        """Make the folder, take up an earlier run in it (`resume`), or replace one (`overwrite`).

        Args:
            source: the folder of the model that is read, which must not be in the run's folder or around it.

        Raises:
            UsageError: the folder is not empty and neither was asked for, or there is nothing to resume.
        """
        folder = Path(path)
        earlier: dict[str, Any] = {}
        if resume:
            earlier = _read(folder / RUN)
            if source.is_relative_to(folder.resolve()):
                raise UsageError(f"the model lies in the run's own folder {folder}; choose another --out")
        else:
            check_output(folder, overwrite, source=source)
            if folder.exists():
                shutil.rmtree(folder)
        try:
            (folder / "answers").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
        content = recipe.model_dump(mode="json")
        state = {
            "weight_edit": __version__,
            "status": "running",
            "recipe": content,
            "steps": earlier.get("steps", {}),
            "finished": earlier.get("finished"),
            "summary": None,
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        run = cls(folder, state)
        run.save()
        run.log(f"weight_edit {__version__}: {'resumed' if resume else 'started'}")
        return run

    def step(self, name: str, inputs: Any, files: tuple[str, ...], work: Callable[[], Any]) -> Any:
        """Do a step, or return its earlier result when its inputs are the same and its files are still there.

        Args:
            name: of the step.
            inputs: anything JSON that the result depends on.
            files: what the step leaves in the folder, relative; their content is checked before reuse.
            work: does it and returns a JSON-ready result.
        """
        key = hashlib.sha256(json.dumps([__version__, inputs], sort_keys=True).encode()).hexdigest()
        earlier = self.state["steps"].get(name)
        if earlier is not None and earlier.get("key") == key and self._same_files(earlier.get("files", {}), files):
            self.log(f"{name}: unchanged, not done again")
            return earlier["result"]
        self.log(f"{name}: started")
        announce(f"{name}: {STEPS.get(name.split()[0], '...')}")
        began = time.monotonic()
        result = work()
        seconds = round(time.monotonic() - began, 3)
        digests = {file: _digest(self.path / file) for file in files}
        self.state["steps"][name] = {"key": key, "seconds": seconds, "files": digests, "result": result}
        self.save()
        self.log(f"{name}: done in {seconds:.1f} s")
        return result

    def forget(self, *names: str) -> None:
        """Drop the results of steps, so that they are done again."""
        for name in names:
            self.state["steps"].pop(name, None)

    def save(self) -> None:
        """Write `run.json`."""
        partial = self.path / f".{RUN}.partial"
        partial.write_text(json.dumps(finite(self.state), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(self.path / RUN)

    def log(self, line: str) -> None:
        """Add a line with the time to `log.txt`."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {line}\n")

    def _same_files(self, earlier: dict[str, str], files: tuple[str, ...]) -> bool:
        return set(earlier) == set(files) and all(
            (self.path / name).exists() and _digest(self.path / name) == digest for name, digest in earlier.items()
        )


def _digest(path: Path) -> str:
    """Of a file's content, or of a folder's fingerprint: models are large, and verified anyway."""
    return fingerprint(path) if path.is_dir() else sha256(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path.parent} holds no run to resume (no {RUN}); leave out --resume") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read; leave out --resume and pass --overwrite") from error
    steps = found.get("steps") if isinstance(found, dict) else None
    if not isinstance(steps, dict) or not all(isinstance(step, dict) for step in steps.values()):
        raise UsageError(f"{path} is not a run of ours; leave out --resume")
    return found
