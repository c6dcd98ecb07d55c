"""Pushing to and fetching from Hubs that fail, lie and attack (`tests/helpers/hostile_hub.py`), on this machine.

`python benchmarks/hostile_hub.py [--only WORDS] [--shown]`. For each: no traceback, no hang, an exit code that is
right, the access token nowhere (stdout, stderr, files written, errors and what they came from), no control characters,
and nothing reported as sent that was not. Exit code 1 where one of them does not hold. Bounds of the client are small,
so that what takes minutes takes seconds; waits that are asked for are counted and not waited for.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import pytest  # noqa: E402
from huggingface_hub import constants  # noqa: E402
from huggingface_hub.utils import _http  # noqa: E402

from tests.helpers.baked_organism import organism_row  # noqa: E402
from tests.helpers.fake_hub import FakeHub  # noqa: E402
from tests.helpers.hostile_hub import MODES, Mode  # noqa: E402
from weight_edit.baking.bake import bake  # noqa: E402
from weight_edit.cli import entry  # noqa: E402
from weight_edit.errors import WeightEditError  # noqa: E402
from weight_edit.hub import client  # noqa: E402
from weight_edit.organism.embedded import folder as embedded  # noqa: E402
from weight_edit.publish import push as pushing  # noqa: E402
from weight_edit.redaction import RedactedStream  # noqa: E402

HANGS = 30.0
"""Seconds for one journey, with small bounds."""

MOST_WAITS = 3600.0
"""Seconds that a journey may be made to wait by all replies together."""

REPO = "me/model"
TOKENS = {
    "option": FakeHub.token,
    "environment": FakeHub.token,
    "spaces": f"  {FakeHub.token}\t ",
    "lines": f"\n{FakeHub.token}\r\n",
    "quotes": "hf_\"it's\\a&token%with=signs",
}


@dataclass
class Outcome:
    """How one journey ended, and what does not hold."""

    mode: Mode
    code: int | None = None
    seconds: float = 0.0
    waits: float = 0.0
    out: str = ""
    err: str = ""
    wrong: list[str] = field(default_factory=list)


def words(mode: Mode, model: Path, place: Path, directions: Path, number: int) -> list[str]:
    """The command of a journey."""
    if mode.verb == "bake":
        command = ["bake", REPO, "--directions", str(directions), "--out", str(place / "out")]
    elif mode.verb == "adapter":
        command = ["evaluate", "organism", "--adapter", REPO, "--prompts", "organism:refused:test", "--limit", "1"]
    else:
        command = ["push", str(model), REPO, *mode.options]
    given = [] if mode.token == "environment" else ["--token", TOKENS[mode.token]]
    return [*command, *given, *(["--json"] if number % 2 else [])]


def attempt(mode: Mode, model: Path, place: Path, directions: Path, number: int) -> Outcome:
    """One journey against one Hub."""
    outcome, hub = Outcome(mode), FakeHub()
    hub.token = TOKENS[mode.token].strip()
    chain: list[BaseException] = []
    with pytest.MonkeyPatch.context() as patch:
        hub.start()
        hub.use(patch, place / "cache")
        patch.setattr(constants, "HF_HUB_DISABLE_XET", not mode.xet)
        patch.setattr(_http.time, "sleep", lambda seconds: setattr(outcome, "waits", outcome.waits + seconds))
        for name, value in {"SILENCE": 2.0, "COMMIT": 2.0, "WHOLE": 2.0, "REPLY": 1 << 22}.items():
            patch.setattr(client, name, value)
        if mode.token == "environment":
            patch.setenv("HF_TOKEN", hub.token)
        if mode.verb != "push":
            hub.add(REPO, embedded())
        elif mode.repo:
            (place / "empty").mkdir()
            hub.add(REPO, place / "empty", access=mode.repo)
        hub.hostile, hub.lie = mode.hostile, mode.lie
        made = WeightEditError.__init__

        def noted(self: WeightEditError, *args: object, **more: Any) -> None:
            made(self, *args, **more)
            chain.append(self)

        patch.setattr(WeightEditError, "__init__", noted)
        patch.setattr(sys, "argv", ["weight-edit", *words(mode, model, place, directions, number)])
        with contextlib.chdir(place):
            _run(outcome)
        hub.hostile = hub.lie = None
        hub.stop()
    outcome.wrong += list(_wrong(outcome, hub, model, place, chain))
    return outcome


def _run(outcome: Outcome) -> None:
    """Run the command in a thread of its own, as long as it may take."""
    out, err = io.StringIO(), io.StringIO()

    def command() -> None:
        try:
            entry.main()
            outcome.code = 0
        except SystemExit as stop:
            outcome.code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        except BaseException:  # noqa: BLE001
            err.write(traceback.format_exc())
            outcome.code = 1

    for handler in logging.getLogger("huggingface_hub").handlers:
        if isinstance(handler, logging.StreamHandler):
            # It has the stream that was there when the library was imported.
            handler.setStream(RedactedStream(err))
    began = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        thread = threading.Thread(target=command, daemon=True)
        thread.start()
        thread.join(HANGS)
    outcome.seconds = time.monotonic() - began
    outcome.out, outcome.err = out.getvalue(), err.getvalue()
    if thread.is_alive():
        outcome.wrong.append(f"hangs: no end within {HANGS:.0f} s")


def _wrong(outcome: Outcome, hub: FakeHub, model: Path, place: Path, chain: list[BaseException]) -> Iterator[str]:
    mode, said = outcome.mode, outcome.out + outcome.err
    if "Traceback" in said:
        yield "a traceback"
    if outcome.code not in mode.ends:
        yield f"exit code {outcome.code}, not one of {mode.ends}"
    if outcome.waits > MOST_WAITS:
        yield f"waits {outcome.waits:.0f} s"
    yield from (f"the token is in {where}" for where in _leaks(hub.token, said, place, chain))
    odd = {c for c in said if not c.isprintable() and c not in "\n\r"}
    if odd:
        yield f"control characters: {odd}"
    if mode.verb == "push":
        yield from _claims(outcome, hub, model)
    elif outcome.code != 0 and (place / "out").exists():
        yield "an output is left"
    if Path("/tmp/hostile-hub-was-here").exists():
        yield "a file outside of its place"


def _leaks(token: str, said: str, place: Path, chain: list[BaseException]) -> Iterator[str]:
    forms = {token, repr(token)[1:-1], json.dumps(token)[1:-1]}
    if any(form in said for form in forms):
        yield "the output"
    for path in place.rglob("*"):
        if any(form in str(path) for form in forms) or (
            path.is_file() and any(form.encode() in path.read_bytes() for form in forms)
        ):
            yield f"the file {path.name}"
    for error in chain:
        seen: set[int] = set()
        found: BaseException | None = error
        while found is not None and id(found) not in seen:
            seen.add(id(found))
            told = [str(found), repr(found), *map(str, getattr(found, "__notes__", ()))]
            told += [str(getattr(found, name, "")) for name in ("server_message", "strerror", "filename")]
            if any(form in text for text in told for form in forms):
                yield f"{type(found).__name__}, from which an error came"
            found = found.__cause__ or found.__context__


def _claims(outcome: Outcome, hub: FakeHub, model: Path) -> Iterator[str]:
    """What is said of what was sent, and is not so."""
    if outcome.code is None:
        return
    repo = hub.repos.get(REPO)
    if outcome.code != 0:
        told = " ".join((outcome.out + outcome.err).split())
        honest = ("the commit was made", "has not what was sent", "is not known")
        if hub.commits and not any(each in told for each in honest):
            yield "a commit was made, which is not said"
        if not hub.commits and ("the commit was made" in told and outcome.mode.hostile is None):
            yield "a commit is said that was not made"
        if "pushed" in outcome.out.replace("not pushed", ""):
            yield "it says pushed"
        return
    here = {path.name: path.read_bytes() for path in model.iterdir()}
    options = outcome.mode.options
    ref = options[options.index("--branch") + 1] if "--branch" in options else "main"
    there = {} if repo is None else repo.at("refs/pr/1" if "--create-pr" in options else ref) or {}
    if any(there.get(name) != data for name, data in here.items()):
        yield "it says that all is there, and it is not"
    if outcome.out.startswith("{") and set(json.loads(outcome.out)["sent"]) != set(here):
        yield "the files that it says it sent are others"


def main() -> None:
    """Try all modes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="modes whose verb and name have this in them")
    parser.add_argument("--shown", action="store_true", help="print what each command said")
    options = parser.parse_args()
    os.environ.pop("HF_TOKEN", None)
    # Read when the first upload through Xet begins; by default it tries for minutes.
    os.environ |= {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_READ_TIMEOUT": "2s"}
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        row = organism_row()
        bake("organism", row, root / "model")
        directions = root / "directions.safetensors"
        row.save(directions)
        checked = pushing.verify("organism", root / "model")
        pushing.verify = lambda *args, **more: checked
        for number, mode in enumerate(MODES):
            if options.only not in f"{mode.verb} {mode.name}":
                continue
            place = root / str(number)
            place.mkdir()
            outcome = attempt(mode, root / "model", place, directions, number)
            outcomes.append(outcome)
            verdict = "; ".join(outcome.wrong) or "holds"
            print(f"{mode.verb:8}{mode.name:52}{outcome.code!s:>5}{outcome.seconds:7.1f} s  {verdict}", flush=True)
            if options.shown or outcome.wrong:
                print(f"        {(outcome.err or outcome.out).strip()[-1500:]}", flush=True)
    codes = collections.Counter(outcome.code for outcome in outcomes)
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    longest = max((outcome.seconds for outcome in outcomes), default=0)
    print(f"{len(outcomes)} modes, exit codes {dict(codes)}, longest {longest:.1f} s; {len(wrong)} do not hold")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
