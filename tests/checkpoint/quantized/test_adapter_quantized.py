"""An adapter of a quantised checkpoint is made of its numbers, not of the codes without their scales."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from tests.helpers.quantized_models import Sample, gpt_oss, llama_compressed, loaded, logits, qwen3_fine_grained
from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.quantized.values import values_of
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.projection import orthonormal_rows

MAKERS: dict[str, Callable[[Path], Sample]] = {
    "qwen3": qwen3_fine_grained,
    "llama-tensor": lambda folder: llama_compressed(folder, "tensor"),
    "llama-channel": lambda folder: llama_compressed(folder, "channel"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_an_adapter_of_fp8_weights_agrees_with_the_edited_model(kind: str, tmp_path: Path) -> None:
    if kind.startswith("llama"):
        pytest.importorskip("compressed_tensors")
    sample = MAKERS[kind](tmp_path / "base")
    draw = np.random.default_rng(0).standard_normal((1, sample.width))
    rows = DirectionRows(orthonormal_rows(draw).astype(np.float32))
    adapter(sample.folder, rows, tmp_path / "lora")
    bake(sample.folder, rows, tmp_path / "out", dequantize=True)
    wanted = logits(loaded(tmp_path / "out"))
    assert (logits(loaded(sample.folder)) - wanted).abs().max() > 0.5
    adapted = PeftModel.from_pretrained(loaded(sample.folder), str(tmp_path / "lora")).eval()
    # The edited model is rounded to bfloat16 and the adapter is not.
    assert (logits(adapted) - wanted).abs().max() < 0.05


@pytest.mark.parametrize("maker", [qwen3_fine_grained, gpt_oss])
def test_values_are_those_that_torch_decodes(maker: Callable[[Path], Sample], tmp_path: Path) -> None:
    sample = maker(tmp_path / "base")
    tensors = load_file(sample.folder / "model.safetensors")
    for name in list(sample.writers)[:2]:
        wanted = sample.parameter(name, tensors)
        found = torch.from_numpy(values_of(Checkpoint.open(sample.folder), name))
        assert torch.equal(found, wanted.float())
