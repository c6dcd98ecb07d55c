"""Standard output that takes nothing is one line on stderr and exit code 2, for tables, documents and help alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def printed_to(out: Path, *words: str | Path, buffered: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    called = [sys.executable, "-m", "weight_edit", *map(str, words)]
    with out.open("w") as file:
        return subprocess.run(called, stdout=file, stderr=subprocess.PIPE, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--version",), "standard output cannot be written: No space left on device"),
        (("judge", "--help"), "standard output cannot be written: No space left on device"),
        (("judge", "answers.txt"), "what was done stands, and only its result is not printed"),
        (("judge", "answers.txt", "--json"), "what was done stands, and only its result is not printed"),
        # What is wrong is said all the same, where the document of the error cannot be printed.
        (("judge", "none.txt", "--json"), "none.txt: there is no such file; check the path"),
    ],
)
def test_a_full_standard_output_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "answers.txt").write_text("I cannot help with that.\nSure, here it is.\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])))
    monkeypatch.chdir(tmp_path)
    # Without a buffer it fails at the first text, else at the end.
    done = printed_to(FULL, *words, buffered="--json" not in words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("weight-edit: ")
    assert line.endswith(said)
