"""One damaged GGUF file through the whole command line, and what must be so after it, whatever was damaged."""

import io
import json
import signal
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.helpers.bake_fuzzing import Wrong, state
from tests.helpers.gguf_models import small_model, write_model
from tests.helpers.gguf_mutations import File, mutated
from tests.helpers.mutations import time_limit
from weight_edit.cli.entry import main

SECONDS = 60.0
KINDS = ("llama", "gemma3_text", "qwen2")


class Sample:
    """Small models that run, as what their files say."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.files = [File.of(write_model(root / f"{kind}.gguf", small_model(kind), kind)) for kind in KINDS]
        row = np.random.default_rng(0).standard_normal((1, 64))
        self.directions = root / "direction.safetensors"
        save_file({"direction": (row / np.linalg.norm(row)).astype(np.float32)}, self.directions)


def called(words: list[object], what: str) -> tuple[int, str, str]:
    """Exit code and output of the command line, run in this process.

    Raises:
        Wrong: it ends with anything but an exit code.
    """
    before, sys.argv = sys.argv, ["weight-edit", *map(str, words)]
    out, said = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(said):
            main()
    except SystemExit as end:
        if end.code == 128 + signal.SIGTERM:
            # Somebody ends the whole of it.
            raise
        return int(end.code or 0), out.getvalue(), said.getvalue()
    except AssertionError:
        raise
    except BaseException as error:
        raise Wrong(f"{what}: {words[0]} ended with {error!r}") from error
    finally:
        sys.argv = before
    return 0, out.getvalue(), said.getvalue()


def treat(sample: Sample, root: Path, seed: int, seconds: float = SECONDS) -> str:
    """Damage a file, inspect and bake it, and check what came of it.

    Args:
        root: an empty folder.

    Returns:
        What came of it: "baked", or the exit codes of `inspect` and `bake`.

    Raises:
        Wrong: a traceback, a message of several lines, an output left, a source that changed, or one that `verify`
            does not accept.
    """
    base, work, scratch = (root / name for name in ("base", "work", "scratch"))
    for folder in (base, work, scratch):
        folder.mkdir()
    raw, how = mutated(sample.files[seed % len(sample.files)], seed)
    what, file = f"seed {seed}: {how}", base / "model.gguf"
    file.write_bytes(raw)
    before = state(base)
    kept, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        with time_limit(seconds):
            codes = [_checked(["inspect", file, "--json", "--quiet"], what)]
            out = work / "out"
            codes.append(
                _checked(["bake", file, "--directions", sample.directions, "--out", out, "--json", "--quiet"], what)
            )
            if not codes[1] and _checked(["verify", file, out, "--weights-only", "--json", "--quiet"], what):
                raise Wrong(f"{what}: baked, and verify does not accept it")
    finally:
        tempfile.tempdir = kept
    if state(base) != before:
        raise Wrong(f"{what}: the source changed")
    if codes[1] and list(work.iterdir()):
        raise Wrong(f"{what}: left {list(work.rglob('*'))} behind")
    if list(scratch.iterdir()):
        raise Wrong(f"{what}: left {list(scratch.iterdir())} in the folder for temporary files")
    return "baked" if not codes[1] else f"exit codes {codes[0]} and {codes[1]}"


def _checked(words: list[object], what: str) -> int:
    """The exit code of a call whose refusal, if it is one, is one plain line."""
    code, out, said = called(words, what)
    if code not in (0, 2, 3):
        raise Wrong(f"{what}: {words[0]} ended with exit code {code}: {said!r}")
    lines = said.splitlines()
    if code and (len(lines) != 1 or not lines[0].isprintable() or not lines[0].startswith("weight-edit: ")):
        raise Wrong(f"{what}: {words[0]}: not one plain line: {said!r}")
    if json.loads(out).get("exit_code", 0) != code:
        raise Wrong(f"{what}: {words[0]}: exit code {code}, and it says {out[:200]!r}")
    return code
