"""On the usual path, a model whose architecture was proven before, no large library is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import weight_edit
from tests.helpers.families import save_family
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.proofs.proven import proven_anatomy

LARGE = (
    "torch",
    "transformers",
    "huggingface_hub",
    "safetensors",
    "scipy",
    "sklearn",
    "datasets",
    "peft",
    "pandas",
    "accelerate",
    "tokenizers",
)

PREPARE = """
from pathlib import Path
from weight_edit.directions.file import read_rows
from weight_edit.baking.prepare import EditOptions, prepare
from weight_edit.hub.source import resolve
from weight_edit.plan.step import EditStep

baking = prepare(resolve(sys.argv[1]), [EditStep(directions=read_rows(sys.argv[2]))], EditOptions())
assert len(baking.tensors.edits) == 7
"""

COMMAND = """
from weight_edit.cli import main

sys.argv = ["weight-edit", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""

REPORT = """
import json
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model, proven already, with directions for it."""
    save_family("llama", tmp_path / "base")
    direction = torch.nn.functional.normalize(torch.randn(64, generator=torch.Generator().manual_seed(0)), dim=0)
    save_file({"direction": direction}, tmp_path / "d.safetensors")
    proven_anatomy(tmp_path / "base", Stored.of(Checkpoint.open(tmp_path / "base").tensors))
    return tmp_path


def large_imports(code: str, *arguments: object) -> set[str]:
    """Which large libraries a fresh Python has imported after it ran some code."""
    root = str(Path(weight_edit.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{REPORT}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])
    assert "numpy" in imported
    return {name for name in LARGE if name in imported}


def test_preparing_an_edit_imports_nothing_large(folder: Path) -> None:
    assert large_imports(PREPARE, folder / "base", folder / "d.safetensors") == set()


def test_inspecting_imports_nothing_large(folder: Path) -> None:
    assert large_imports(COMMAND, "inspect", folder / "base") == set()


def test_baking_imports_nothing_large(folder: Path) -> None:
    arguments = ("bake", folder / "base", "--directions", folder / "d.safetensors", "--out", folder / "out")
    assert large_imports(COMMAND, *arguments) == set()
