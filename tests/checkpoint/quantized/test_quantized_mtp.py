"""Multi-token-prediction layers in quantised formats are edited in them, as the blocks of the model are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.quantized_models import Sample, gpt_oss, qwen3_fine_grained
from weight_edit.baking.bake import bake
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.verification.verify import verify

FILE = "model.safetensors"


def with_mtp(sample: Sample) -> Sample:
    """A layer like the last block, numbered on from it, with a plain projection."""
    stored = load_file(sample.folder / FILE)
    block = {name: tensor for name, tensor in stored.items() if name.startswith("model.layers.1.")}
    mtp = {name.replace("layers.1.", "layers.2.", 1): tensor.clone() for name, tensor in block.items()}
    mtp["model.layers.2.eh_proj.weight"] = torch.randn(sample.width, 2 * sample.width).bfloat16()
    save_file({**stored, **mtp}, sample.folder / FILE, {"format": "pt"})
    return sample


def like(name: str) -> str:
    """The layer's tensor that is like one of the last block."""
    return name.replace("layers.1.", "layers.2.", 1) if name.startswith("model.layers.1.") else ""


@pytest.mark.parametrize("make", [qwen3_fine_grained, gpt_oss])
def test_the_layer_is_edited_as_the_block_that_it_is_like(make: Callable[[Path], Sample], tmp_path: Path) -> None:
    sample = with_mtp(make(tmp_path / "base"))
    generator = torch.Generator().manual_seed(3)
    rows = DirectionRows(torch.nn.functional.normalize(torch.randn(1, sample.width, generator=generator)))
    result = bake(sample.folder, rows, tmp_path / "edited", mtp="edit")
    before, after = (load_file(folder / FILE) for folder in (sample.folder, tmp_path / "edited"))
    for name in after:
        # The last block and the layer had the same numbers, and were edited alike.
        if name.startswith("model.layers.2.") and "eh_proj" not in name:
            assert torch.equal(
                after[name].view(torch.uint8), after[name.replace("layers.2.", "layers.1.", 1)].view(torch.uint8)
            )
    changed = [name for name in after if not torch.equal(before[name].view(torch.uint8), after[name].view(torch.uint8))]
    assert any(name.startswith("model.layers.2.mlp") for name in changed)
    assert "model.layers.2.eh_proj.weight" in changed
    assert {*map(like, sample.writers), *map(like, sample.biases)} - {""} <= set(result.mtp_edited)
    # What holds scales belongs to the tensor that it scales, and is no tensor of the layer's.
    assert not any("scale" in name for name in (*result.mtp_kept, *result.mtp_edited))
    assert verify(sample.folder, tmp_path / "edited", weights_only=True).problems == ()
    assert result.extra == ()
