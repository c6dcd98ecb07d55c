"""An architecture's anatomy with its proof: taken from the cache, or derived and proven now."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from weight_edit.anatomy.disk.stored import Stored
from weight_edit.checkpoint.files import read_whole
from weight_edit.checkpoint.gguf.header import read_gguf_header
from weight_edit.checkpoint.gguf.parts import GgufFiles, gguf_files
from weight_edit.errors import UnsupportedError, UsageError, WeightEditError
from weight_edit.proofs.cache import key_of, remember, remembered
from weight_edit.proofs.record import ProvenAnatomy
from weight_edit.utils.extras import need
from weight_edit.utils.orphans import PIPE, leash
from weight_edit.utils.progress import bar

WORKER = "weight_edit.proofs.worker"


def proven_anatomy(
    folder: Path, stored: Stored, *, name: str | None = None, trust_remote_code: bool = False
) -> ProvenAnatomy:
    """The proven anatomy of the model with a folder's config.json or a GGUF file's metadata, and its layout on disk.

    What was proven once is taken from the cache, without importing torch. Otherwise it is derived and proven: here,
    where torch and transformers are loaded already, and else in a process of its own, whose memory is given back.
    Refusals are not remembered, and neither is anything of a model that brings its own code.

    Args:
        folder: of the model, or its GGUF file; no weights are read.
        stored: the tensors of its checkpoint.
        name: what the user called it, for messages.
        trust_remote_code: allow the config's own modelling code.

    Raises:
        UsageError: config.json or the header of the GGUF file cannot be read, or the process that derives was killed.
        UnsupportedError: an architecture that is not understood, or whose proof fails.
    """
    gguf = gguf_files(folder)
    config = bytes(read_whole(folder / "config.json")) if gguf is None else _metadata(gguf)
    key = None if trust_remote_code else key_of(config, stored.digest())
    found = None if key is None else remembered(key)
    if found is None:
        with bar("deriving the anatomy and proving it, once for this config"):
            found = _prove(folder, name or str(folder), stored, trust_remote_code)
        if key is not None:
            remember(key, found)
    return found


def _metadata(files: GgufFiles) -> bytes:
    """What a config is made of: the entries of a GGUF header, of long lists and lists of texts the lengths alone."""
    need("gguf", "editing a GGUF file")
    header = read_gguf_header(files.first)
    entries = [sorted(header.values.items()), sorted(header.lengths.items())]
    return json.dumps(["GGUF", version("gguf"), *entries]).encode()


def _prove(folder: Path, name: str, stored: Stored, trust_remote_code: bool) -> ProvenAnatomy:
    loaded = "torch" in sys.modules and "transformers" in sys.modules
    # A frozen program's executable is the program itself, not Python.
    if loaded or not sys.executable or getattr(sys, "frozen", False):
        from weight_edit.proofs.architecture import derive_and_prove

        return derive_and_prove(folder, name, stored, trust_remote_code=trust_remote_code)
    return _in_a_child(folder, name, stored, trust_remote_code)


def _in_a_child(folder: Path, name: str, stored: Stored, trust_remote_code: bool) -> ProvenAnatomy:
    trust = ["--trust-remote-code"] if trust_remote_code else []
    # A name may begin with a dash.
    command = [sys.executable, "-P", "-m", WORKER, *trust, "--", str(folder.absolute()), name]
    # The child has to find what this process would, this package above all.
    places = [str(Path(place).absolute()) for place in sys.path if isinstance(place, str)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    try:
        # Whatever ends this call ends the child: an interrupt does, and so does a signal that kills this process.
        with leash() as held:
            child = subprocess.run(
                command,
                input=stored.to_json().encode(),
                capture_output=True,
                env={**environment, PIPE: str(held)},
                pass_fds=(held,),
                check=False,
            )
    except OSError as error:
        raise UsageError(f"{name}: no process could be started to derive its anatomy: {error.strerror}") from error
    answer = _answer(child.stdout) if child.returncode == 0 else None
    if answer is None:
        raise UsageError(f"{name}: the process that derives its anatomy {_ending(child)}")
    if "error" in answer:
        kind = UnsupportedError if answer.get("exit_code") == UnsupportedError.exit_code else UsageError
        options = answer.get("options")
        raise kind(str(answer["error"]), option=[*map(str, options)] if isinstance(options, list) else None)
    try:
        return ProvenAnatomy.from_dict(answer.get("proven"))
    except ValueError as error:
        raise UsageError(f"{name}: the process that derives its anatomy gave nonsense") from error


def answer_of(work: "ProvenAnatomy | WeightEditError") -> str:
    """The child process's answer, encoded as one line of JSON."""
    if isinstance(work, ProvenAnatomy):
        return json.dumps({"proven": work.to_dict()})
    return json.dumps({"error": str(work), "exit_code": work.exit_code, "options": work.options})


def _answer(output: bytes) -> dict[str, Any] | None:
    """The answer on the last line of the child's output; None if that is no JSON object."""
    lines = output.splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _ending(child: "subprocess.CompletedProcess[bytes]") -> str:
    if child.returncode < 0:
        return f"was killed by signal {-child.returncode}, as happens when memory runs out; try again"
    lines = child.stderr.decode("utf-8", "replace").strip().splitlines()
    said = "".join(c for c in lines[-1] if c.isprintable())[:200] if lines else "it said nothing"
    return f"failed with exit code {child.returncode} ({said})"
