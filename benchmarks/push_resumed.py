"""A push of a real model that is killed before its commit, and goes on; and its edit published alone and applied again.

`python benchmarks/push_resumed.py MODEL DIRECTIONS [--scratch DIR]`, against a Hub on this machine, by the command line
in processes of its own. Prints what each step sent. Exit code 1 where a content was sent twice, or the checkpoint that
is made of the published pack is not the one that was packed.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.helpers.fake_hub import FakeHub  # noqa: E402

REPO = "me/model"


def started(hub: FakeHub, place: Path, *words: str) -> "subprocess.Popen[str]":
    """The command line, which takes this machine's Hub for the Hub."""
    own = {"HF_HOME": str(place / "home"), "WEIGHT_EDIT_CACHE": str(place / "cache"), "HF_TOKEN": hub.token}
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.port}", "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "weight_edit", *words],
        env={**os.environ, **own, **address},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def step(hub: FakeHub, place: Path, *words: str) -> dict[str, Any]:
    """The document of a command that must succeed; what it sent is printed."""
    hub.asked.clear()
    began = time.monotonic()
    process = started(hub, place, *words, "--json")
    out, err = process.communicate()
    if process.returncode != 0:
        sys.exit(f"{words[0]} failed: {err[-2000:]}")
    report(" ".join(words[:1] + words[-1:]), hub, time.monotonic() - began)
    document: dict[str, Any] = json.loads(out)
    return document


def report(what: str, hub: FakeHub, seconds: float) -> None:
    """Print what one command sent."""
    puts = sum(asked.method == "PUT" for asked in hub.asked)
    print(f"{what:32}{seconds:7.1f} s  contents sent: {puts}, commits: {hub.commits}", flush=True)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 by file."""
    found = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        with path.open("rb") as file:
            found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def main() -> None:
    """Push, kill, push again, and publish the edit alone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("directions")
    parser.add_argument("--scratch", default=None)
    options = parser.parse_args()
    hub = FakeHub()
    hub.start()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        place = Path(scratch)
        edited = str(place / "edited")
        step(hub, place, "bake", options.model, "--directions", options.directions, "--out", edited)
        to = ("push", edited, REPO, "--base", options.model)
        reached = threading.Event()

        def stops(handler: Any, stage: str) -> bool:
            if stage != "commit":
                return False
            reached.set()
            threading.Event().wait(60)
            return True

        hub.hostile = stops
        hub.asked.clear()
        began = time.monotonic()
        process = started(hub, place, *to)
        reached.wait(1800)
        process.send_signal(signal.SIGKILL)
        process.wait()
        report("push, killed before its commit", hub, time.monotonic() - began)
        hub.hostile = None
        again = step(hub, place, *to)
        twice = any(asked.method == "PUT" for asked in hub.asked)
        third = step(hub, place, *to)
        alone = step(hub, place, "push", edited, "me/edit", "--base", options.model, "--pack")
        step(hub, place, "apply", "me/edit", "--base", options.model, "--out", str(place / "again"))
        same = digests(place / "edited") == digests(place / "again")
        sizes = (again["bytes"], alone["bytes"])
        print(f"checkpoint {sizes[0]:,} bytes, published alone {sizes[1]:,} bytes; made again the same: {same}")
        print(f"sent by the second push: {len(again['sent'])} files, by the third: {len(third['sent'])}")
        sys.exit(1 if twice or not same or third["sent"] else 0)


if __name__ == "__main__":
    main()
