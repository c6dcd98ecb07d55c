"""What the tests of several verbs share."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def directions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with one direction of the embedded model, drawn at random."""
    path = tmp_path_factory.mktemp("cli") / "d.safetensors"
    row = torch.nn.functional.normalize(torch.randn(1, 128, generator=torch.Generator().manual_seed(0)))
    save_file({"direction": row}, path)
    return path
