"""An edit of the embedded model, baked once for all tests; each gets a copy of its own."""

import shutil
from pathlib import Path

import pytest
import torch

from weight_edit.baking.bake import bake
from weight_edit.directions.directions import Directions


def organism_row() -> Directions:
    """One random direction of the embedded model's width."""
    return Directions(torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(0))))


@pytest.fixture(scope="session")
def baked_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model edited along `organism_row()`; tests leave it alone."""
    out = tmp_path_factory.mktemp("baked") / "out"
    bake("organism", organism_row(), out)
    return out


@pytest.fixture
def baked(baked_once: Path, tmp_path: Path) -> Path:
    """A copy of the edited embedded model, for one test to change."""
    return Path(shutil.copytree(baked_once, tmp_path / "out"))
