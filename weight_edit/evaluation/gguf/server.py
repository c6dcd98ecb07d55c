"""llama.cpp's server as a child process, which serves one GGUF file on this machine and ends with its parent."""

import contextlib
import ctypes
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from weight_edit.errors import UnsupportedError, UsageError, WeightEditError, plain
from weight_edit.redaction import redacted, remember
from weight_edit.utils.progress import bar, duration

HOST = "127.0.0.1"
START_SECONDS = 900.0
"""Seconds that a server may take to load a file."""

_TRIES = 3
_PATIENCE = 10.0
"""Seconds that a server has to end when it is asked to."""

_GREEDY = ("--samplers", "temperature", "--temp", "0", "--mirostat", "0", "--repeat-penalty", "1")
"""Samplers may be set in the file itself (`general.sampling.*`), a penalty of repetition among them."""

# Where the server runs, not what it answers.
_KEPT = frozenset({"DEVICE", "N_GPU_LAYERS", "SPLIT_MODE", "TENSOR_SPLIT", "MAIN_GPU", "THREADS", "FIT"})
_SETTING = "LLAMA_ARG_"
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_PREFIX = re.compile(r"^(?:[\d.]+ )?(?:[IWEDT] )?(?:\w+ +[\w~]+: +)?")
_ARCHITECTURE = re.compile(r"unknown model architecture: '([^']*)'")
_TELLING = re.compile(r"error|fail|unknown|unable|invalid|cannot|not supported|out of memory", re.IGNORECASE)
_NO_PORT = re.compile(r"couldn't bind|address already in use", re.IGNORECASE)
_LOG_BYTES = 100_000
_END_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a file is served.

    Attributes:
        slots: answers at the same time.
        context: tokens of each of them, prompt and answer.
        template: a chat template in place of the file's own.
    """

    slots: int
    context: int
    template: str | None = None


class LlamaServer:
    """A running `llama-server` with one file; it takes requests of who knows its key alone.

    It is stopped by `stop`, when this object is gone, and when Python ends; on Linux also when this process is killed.

    Args:
        program: its path.
        file: the GGUF file; of a model in parts the first.
        settings: how it is served.
        seconds: how long it may take to load the file.

    Raises:
        UnsupportedError: llama.cpp does not know the architecture.
        UsageError: the program cannot be started, ends early, or takes too long; with what it said.
    """

    def __init__(self, program: Path, file: Path, settings: ServerSettings, *, seconds: float = START_SECONDS) -> None:
        self.settings = settings
        self.key = secrets.token_hex(16)
        remember(self.key)
        self.model = f"gguf-{secrets.token_hex(4)}"
        """Its name there, by which this server is told from another one on the same port."""
        self._file = file
        for attempt in range(_TRIES):
            # It has no name, so that nothing of it is left behind; each try has its own, which tells its own reason.
            self._log: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server writes to it
            self.port = _free_port()
            self._process = self._start(program)
            self._end = weakref.finalize(self, _end, self._process, os.getpid())
            try:
                self._wait(seconds)
                return
            except _PortTaken:
                self.stop()
                if attempt == _TRIES - 1:
                    raise UsageError(f"no port for llama.cpp's server is free on {HOST}; try again") from None
            except BaseException:
                self.stop()
                raise

    @property
    def url(self) -> str:
        """The address of its chat interface."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it, at once if it does not end when asked to."""
        self._end()

    def failure(self, what: str) -> WeightEditError:
        """The error that says what went wrong, with what the server said last."""
        lines = self._lines()
        unknown = next(filter(None, map(_ARCHITECTURE.search, lines)), None)
        name = self._file.name
        if unknown is not None:
            return UnsupportedError(
                f"{name}: llama.cpp's server does not know the architecture '{unknown[1]}'; a newer one may"
            )
        # The first says why, the last how it ended.
        told = [line for line in lines if _TELLING.search(line)] or lines
        said = "; ".join(dict.fromkeys(line for line in (*told[:1], *told[-1:])))
        return UsageError(f"llama.cpp's server {what} with {name}" + (f"; it said: {said}" if said else ""))

    def _start(self, program: Path) -> subprocess.Popen[bytes]:
        settings = self.settings
        command = [str(program), "--model", str(self._file), "--host", HOST, "--port", str(self.port)]
        command += ["--alias", self.model, "--parallel", str(settings.slots)]
        command += ["--ctx-size", str(settings.slots * settings.context), "--jinja", *_GREEDY]
        if settings.template is not None:
            command += ["--chat-template", settings.template]
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**server_environment(os.environ), "LLAMA_API_KEY": self.key},
                # Ctrl-C is for the parent, which ends it in its turn.
                start_new_session=True,
                preexec_fn=_ending_with_parent(),
            )
        except OSError as error:
            raise UsageError(
                f"{program.name} cannot be run: {os.strerror(error.errno or 0)}; is it llama.cpp's server?"
            ) from None

    def _wait(self, seconds: float) -> None:
        began = time.monotonic()
        with bar(f"llama.cpp's server loads {self._file.name}"):
            while time.monotonic() - began < seconds:
                if not self.running:
                    if any(_NO_PORT.search(line) for line in self._lines()):
                        raise _PortTaken
                    raise self.failure("ended while it started")
                if _get(self.port, "/health") is not None:
                    if not self._is_this():
                        raise _PortTaken
                    return
                time.sleep(0.1)
        raise self.failure(f"was not ready after {duration(seconds)}")

    def _is_this(self) -> bool:
        listed = _get(self.port, "/v1/models", self.key) or {}
        entries = listed.get("data")
        return isinstance(entries, list) and any(
            isinstance(entry, dict) and entry.get("id") == self.model for entry in entries
        )

    def _lines(self) -> list[str]:
        """The last lines of its log, without times, folders and secrets."""
        # Not by reading: the server writes where this file object stands.
        file = self._log.fileno()
        text = os.pread(file, _LOG_BYTES, max(0, os.fstat(file).st_size - _LOG_BYTES)).decode("utf-8", "replace")
        for folder in (self._file.parent, self._file.parent.resolve(), Path.home()):
            if folder != folder.parent:
                text = text.replace(f"{folder}/", "")
        lines = (plain(redacted(_PREFIX.sub("", line).strip()))[:300] for line in text.splitlines())
        return [line for line in lines if line]


class _PortTaken(Exception):
    """Raised when another process has taken the port."""


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for the server: without secrets, and without settings that change answers."""
    return {
        name: value
        for name, value in environment.items()
        if not (name.startswith(_SETTING) and name.removeprefix(_SETTING) not in _KEPT) and not _SECRET.search(name)
    } | {f"{_SETTING}OFFLINE": "1", f"{_SETTING}UI": "0"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _ending_with_parent() -> Callable[[], None] | None:
    """What a child runs before the program, so that the kernel ends it when its parent is gone; None but on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    parent = os.getpid()
    # Looked up here: after the fork as little as possible is done.
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        prctl(_END_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork's copy of this object
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _get(port: int, path: str, key: str | None = None) -> dict[str, Any] | None:
    """The JSON object that the server sends with the status 200; None for anything else."""
    connection = HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path, headers={} if key is None else {"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        content = response.read(1 << 20)
        found = json.loads(content) if response.status == 200 else None
    except (OSError, HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None
