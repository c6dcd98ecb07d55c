"""The noise of a precision is transformers' own: it moves with the precision, and no stack's figures go into it."""

from pathlib import Path

import pytest
import torch
from stacks.precision import PRECISIONS, noise
from stacks.replies import Reply
from stacks.small_models import small_model
from stacks.suspects import reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model("Llama, tied", tmp_path_factory.mktemp("precision") / "base")


def noises(folder: Path, said: Reply) -> dict[str, float]:
    return {
        name: noise(lambda: reference(folder), [[5, 6, 7]], [said], precision=name)
        for name in ("float32", "float16", "8 bits")
    }


def test_coarser_precisions_are_noisier(folder: Path) -> None:
    found = noises(folder, Reply(tokens=[8, 9, 10], top=[None] * 3))
    assert list(found) == list(PRECISIONS)
    assert 0 < found["float32"] < found["float16"] / 10
    assert found["float16"] < found["8 bits"] / 2


def test_what_a_stack_says_of_its_probabilities_changes_nothing(folder: Path) -> None:
    told = Reply(tokens=[8, 9, 10], top=[[(8, 0.0), (9, -50.0)]] * 3)
    assert noises(folder, told) == noises(folder, Reply(tokens=[8, 9, 10], top=[None] * 3))


def test_rounded_inputs_are_within_half_a_step() -> None:
    values = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    values[1, :32] = 0
    layer = torch.nn.Linear(64, 64, bias=False)
    layer.weight.data = torch.eye(64)
    rounded = PRECISIONS["8 bits"](torch.nn.Sequential(layer))(values)
    steps = values.unflatten(-1, (-1, 32)).abs().amax(-1, keepdim=True) / 127
    assert ((rounded - values).unflatten(-1, (-1, 32)).abs() <= steps * 0.5001).all()
    assert not torch.equal(rounded, values)
    assert not rounded[1, :32].any()
