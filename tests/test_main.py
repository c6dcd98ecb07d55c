"""`python -m weight_edit`, called where a downloaded model is."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(cwd: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "weight_edit", "bake", "--help"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    return subprocess.run(command, cwd=cwd, env={**environment, **more}, capture_output=True, text=True, check=False)


def test_nothing_is_imported_from_a_models_folder(tmp_path: Path) -> None:
    for name in ("typer", "rich", "numpy", "torch", "json", "dataclasses"):
        (tmp_path / f"{name}.py").write_text("open('taken', 'w').close()\n", encoding="utf-8")
    done = call(tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert "--directions" in done.stdout
    assert not (tmp_path / "taken").exists()


def test_a_checkout_can_be_called_from_its_root() -> None:
    done = call(ROOT, PYTHONPATH="")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", ">&- 2>&-"])
def test_a_caller_that_has_closed_its_streams_is_served_all_the_same(tmp_path: Path, closed: str) -> None:
    prompts = tmp_path / "a.jsonl"
    prompts.write_text('{"answer": "I cannot help with that."}\n', encoding="utf-8")
    verb = f"-m weight_edit judge {prompts} --out {tmp_path / 'judged.jsonl'} --json"
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} {verb} {closed}",
        shell=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert ("refused" in done.stdout) is (">&- 2" not in closed)
    assert "refused" in (tmp_path / "judged.jsonl").read_text(encoding="utf-8")
