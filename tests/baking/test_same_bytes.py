"""The bytes of an edit do not depend on libraries, threads or features of the processor."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from numpy._core import _multiarray_umath as core
from threadpoolctl import threadpool_info

from tests.helpers.baked_digests import STEPS, steps
from tests.helpers.families import save_family
from tests.helpers.quantized_models import qwen3_fine_grained
from weight_edit.baking.bake import bake

ROOT = Path(__file__).parents[2]

FAST = " ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__[name])
SETTINGS = {
    "slow": {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": FAST},
    "fast": {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"},
}


def baked(folder: Path, setting: str, *models: Path) -> dict[str, Any]:
    """What a process under a setting bakes."""
    command = [sys.executable, "-m", "tests.helpers.baked_digests", str(folder / setting), *map(str, models)]
    own = {**os.environ, **{key: value for key, value in SETTINGS[setting].items() if value}}
    ended = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True)
    if ended.returncode < 0:
        pytest.skip(f"this processor cannot run what is {setting}: {SETTINGS[setting]}")
    assert not ended.returncode, ended.stderr[-2000:]
    return json.loads(ended.stdout.splitlines()[-1])


def test_every_file_is_the_same_under_other_kernels_threads_and_features(tmp_path):
    models = [
        # In float64, where the last bit of a sum is in the file.
        save_family("llama", tmp_path / "plain", dtype=torch.float64),
        save_family("gemma2", tmp_path / "behind norms", dtype=torch.float64),
        qwen3_fine_grained(tmp_path / "quantised").folder,
    ]
    # Their anatomies are proven here, so that the processes need no torch.
    for model in models:
        width = json.loads((model / "config.json").read_text())["hidden_size"]
        bake(model, steps("one direction", width), tmp_path / "first" / model.name)
    slow, fast = (baked(tmp_path, setting, *models) for setting in SETTINGS)
    libraries = [found["sums"].pop("by a library") for found in (slow, fast)]
    assert slow == fast
    assert len(slow) == 2 * len(STEPS) + 2
    assert all("weight_edit.json" in files and len(files) > 3 for name, files in slow.items() if name != "sums")
    if any(pool["internal_api"] == "openblas" for pool in threadpool_info()):
        # Else the settings would have shown nothing.
        assert libraries[0] != libraries[1]
