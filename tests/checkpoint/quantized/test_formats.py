"""Which storage a tensor has, and what is refused by name."""

from typing import Any

import pytest

from tests.helpers.quantized_samples import COMPRESSED, FINE, infos
from weight_edit.checkpoint.quantized.formats import quantised_names, storage_of
from weight_edit.checkpoint.quantized.fp8 import Fp8Block, Fp8Scaled
from weight_edit.checkpoint.quantized.mxfp4 import Mxfp4
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Plain
from weight_edit.errors import UnsupportedError, UsageError

W = "model.layers.0.mlp.down_proj.weight"
E = "model.layers.0.mlp.experts.down_proj"
IN_BLOCKS = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"strategy": "block", "block_structure": [64, 128]}}},
}


def fp8(scale: str, dtype: str, shape: tuple[int, ...], weight: tuple[int, ...] = (200, 300)) -> dict[str, TensorInfo]:
    return infos(**{W: ("F8_E4M3", weight), W + scale: (dtype, shape)})


@pytest.mark.parametrize(
    ("tensors", "config", "block"),
    [
        (fp8("_scale_inv", "F32", (2, 3)), FINE, (128, 128)),
        (fp8("_scale_inv", "BF16", (2, 3)), {"quant_method": "fp8"}, (128, 128)),
        (fp8("_scale_inv", "F8_E8M0", (2, 3)), FINE, (128, 128)),
        (fp8("_scale_inv", "U8", (2, 3)), FINE | {"scale_fmt": "ue8m0"}, (128, 128)),
        (fp8("_scale_inv", "F32", (4, 5)), FINE | {"weight_block_size": [50, 64]}, (50, 64)),
        (fp8("_scale_inv", "F32", (7, 2, 3), (7, 200, 300)), FINE, (128, 128)),
        (fp8("_scale", "F32", (4, 3)), IN_BLOCKS, (64, 128)),
        (fp8("_scale", "BF16", (200, 1)), COMPRESSED, (1, 300)),
        (fp8("_scale", "F32", (200,)), COMPRESSED, (1, 300)),
        (fp8("_scale", "F32", (7, 200, 1), (7, 200, 300)), COMPRESSED, (1, 300)),
    ],
)
def test_scales_of_blocks_and_rows(tensors: dict[str, TensorInfo], config: dict[str, Any], block) -> None:
    storage = storage_of(W, tensors, config, 0 if len(tensors[W].shape) == 2 else 1)
    assert isinstance(storage, Fp8Block)
    assert (storage.row_step, storage.col_step) == block
    assert (storage.rows, storage.cols) == (200, 300)
    assert storage.parts == {name: (info.dtype, info.shape) for name, info in tensors.items()}
    assert storage.lossy


@pytest.mark.parametrize(
    ("shape", "weight"),
    [((), (200, 300)), ((1,), (200, 300)), ((1, 1), (200, 300)), ((7,), (7, 200, 300)), ((7, 1, 1), (7, 200, 300))],
)
@pytest.mark.parametrize("config", [FINE | {"weight_block_size": None}, COMPRESSED])
def test_one_scale_for_a_tensor_or_for_each_expert(shape, weight, config: dict[str, Any]) -> None:
    storage = storage_of(W, fp8("_scale", "F32", shape, weight), config, -2)
    assert isinstance(storage, Fp8Scaled)
    assert storage.one_scale
    assert storage.slabs == (7 if len(weight) == 3 else 1)


def test_mxfp4() -> None:
    tensors = infos(**{E + "_blocks": ("U8", (4, 64, 2, 16)), E + "_scales": ("U8", (4, 64, 2))})
    storage = storage_of(E, tensors, {"quant_method": "mxfp4"}, 1)
    assert isinstance(storage, Mxfp4)
    assert storage.shape == (4, 64, 64)
    assert list(storage.parts) == [E + "_blocks", E + "_scales"]
    assert quantised_names(tensors, {}) == (E,)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("config", [{}, FINE, COMPRESSED])
def test_tensors_that_are_not_quantised(dtype: str, config: dict[str, Any]) -> None:
    tensors = infos(**{W: (dtype, (8, 4)), "other.weight": ("F8_E4M3", (8, 4)), "other.weight_scale": ("F32", ())})
    storage = storage_of(W, tensors, config, 0)
    assert isinstance(storage, Plain)
    assert (storage.rows, storage.cols) == (8, 4)
    assert quantised_names(tensors, config) == ("other.weight",)


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (infos(**{W: ("F8_E4M3", (200, 300))}), FINE, "down_proj.weight' is F8_E4M3 without scales"),
        (fp8("_scale_inv", "F32", (3, 2)), FINE, r"scale_inv' is \(3, 2\), which fits no way .* blocks of 128 x 128"),
        (fp8("_scale", "F32", (2, 3)), COMPRESSED, "blocks of a size that the config names"),
        (fp8("_scale", "F32", (7,)), FINE, "fits no way"),
        (fp8("_scale", "F32", (2,), (7, 8, 9)), FINE, "fits no way"),
        (fp8("_scale_inv", "I32", (2, 3)), FINE, "is I32, which no FP8 weight's scales are"),
        (fp8("_scale_inv", "U8", (2, 3)), FINE, "is U8, which no FP8 weight's scales are"),
        (infos(**{W + "_blocks": ("U8", (4, 64, 2, 16))}), {}, "has no scales: .*weight_scales' is missing"),
        (
            infos(**{W + "_blocks": ("U8", (4, 64, 2, 16)), W + "_scales": ("U8", (4, 2, 64))}),
            {},
            r"weight_scales' is \(4, 2, 64\), but the blocks have \(4, 64, 2\)",
        ),
    ],
)
def test_scales_that_do_not_fit_are_bad_input(tensors, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        storage_of(W, tensors, config, -2)


@pytest.mark.parametrize(
    ("tensors", "config", "axis", "message"),
    [
        (infos(**{W: ("I8", (8, 4))}), {"quant_method": "eetq"}, 0, r"as I8 \(eetq\); edit the check"),
        (infos(**{W: ("F8_E5M2", (8, 4))}), {}, 0, "stored as F8_E5M2; edit"),
        (infos(**{W: ("BF16", (8, 4)), W + "_scale": ("F32", ())}), FINE, 0, r"stored as BF16 \(fp8\)"),
        (infos(**{W: ("F8_E4M3", (8,)), W + "_scale": ("F32", ())}), FINE, 0, "only matrices are edited"),
        (fp8("_scale", "F32", (1,)), COMPRESSED | {"transform_config": {"R1": 1}}, 0, "rotated form"),
        (fp8("_scale", "F32", (7, 1, 1), (7, 8, 9)), FINE, 0, "along its last two axes only"),
        (
            infos(**{W.removesuffix("weight") + "qweight": ("I32", (8, 4))}),
            {"quant_method": "exl3"},
            0,
            r"is not in the checkpoint but 'model.layers.0.mlp.down_proj.qweight', I32 \(exl3\), is",
        ),
        (infos(other=("F32", (1,))), {}, 0, "not in the checkpoint; its layout"),
        (infos(**{W + "_blocks": ("I8", (4, 64, 2, 16)), W + "_scales": ("U8", (4, 64, 2))}), {}, 1, "where MXFP4 has"),
        (infos(**{W + "_blocks": ("U8", (4, 64, 16)), W + "_scales": ("U8", (4, 64))}), {}, 1, "where MXFP4 has"),
        (infos(**{W + "_blocks": ("U8", (4, 8, 2, 16)), W + "_scales": ("U8", (4, 8, 2))}), {}, 0, "last two axes"),
    ],
)
def test_other_formats_are_refused_by_name(tensors, config: dict[str, Any], axis: int, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        storage_of(W, tensors, config, axis)
