"""Where parameters lie in quantised checkpoints: under one name each, and transposed in MXFP4."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GptOssForCausalLM, Mxfp4Config

from tests.helpers.quantized_models import gpt_oss, qwen3_fine_grained
from weight_edit.anatomy.disk.conversion import resolve
from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.narrow.small import build
from weight_edit.checkpoint.source.checkpoint import Checkpoint


def test_mxfp4_lies_transposed(tmp_path: Path) -> None:
    """Transformers' own reader gives the numbers on disk with the axes that the layout says."""
    sample = gpt_oss(tmp_path / "base")
    checkpoint = Checkpoint.open(tmp_path / "base")
    options = Mxfp4Config(dequantize=True)
    model: Any = GptOssForCausalLM.from_pretrained(tmp_path / "base", quantization_config=options, dtype=torch.float32)
    layout = resolve(model, Stored.of(checkpoint.tensors))
    assert (layout.missing, layout.mismatched, layout.clashes, layout.extra) == ({}, {}, (), ())
    tensors = {name: checkpoint.read(name) for name in checkpoint.tensors}
    for parameter in ("model.layers.1.mlp.experts.down_proj", "model.layers.0.mlp.experts.gate_up_proj"):
        ((name, axes),) = ((piece.name, piece.axes) for piece in DiskNames(layout).pieces(parameter))
        assert axes == (0, 2, 1)
        numbers = sample.parameter(name, tensors).permute(axes)
        torch.testing.assert_close(model.get_parameter(parameter).double(), numbers)


def test_scales_are_no_parameters(tmp_path: Path) -> None:
    qwen3_fine_grained(tmp_path / "base")
    checkpoint = Checkpoint.open(tmp_path / "base")
    config = AutoConfig.from_pretrained(tmp_path / "base")
    layout = resolve(build(config, device="meta"), Stored.of(checkpoint.tensors))
    assert (layout.missing, layout.mismatched, layout.clashes, layout.extra) == ({}, {}, (), ())
    assert any(name.endswith("_scale_inv") for name in checkpoint.tensors)
