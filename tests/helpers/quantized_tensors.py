"""Random weights in every quantised storage, and how tensors of quantised layers are named and shaped."""

import numpy as np

from tests.helpers.quantized_samples import (
    block_storage,
    mxfp4_storage,
    projection,
    reader,
    row_storage,
    store,
    tensor_storage,
)
from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.tensor.edited import EditedTensor, Rounding

WIDTH = 520
STORAGES = {
    "block": lambda: block_storage((WIDTH, 300)),
    "block-e8m0": lambda: block_storage((WIDTH, 300), "F8_E8M0"),
    "row": lambda: row_storage((WIDTH, 300)),
    "tensor": lambda: tensor_storage((WIDTH, 300)),
    "experts": lambda: block_storage((2, WIDTH, 140)),
    "mxfp4": lambda: mxfp4_storage(2, WIDTH, 3),
}
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}


def source(storage: Coded, seed: int = 0, along: float = 0.0) -> dict[str, np.ndarray]:
    """Random weights; with `along` times as much of the first direction in them as chance has."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((storage.slabs, storage.rows, storage.cols))
    values += along * projection(WIDTH).left[:, :1] * generator.standard_normal((storage.slabs, 1, storage.cols))
    return store(storage, values * 0.02)


def written(edited: EditedTensor, parts: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Rounding]:
    rounding = Rounding(edited)
    name, *others = parts
    found = {name: np.concatenate(list(edited.blocks(name, reader(parts), rounding)))}
    return found | {other: np.concatenate(list(edited.blocks(other, reader(parts)))) for other in others}, rounding


def experts(layer: int, rows: int = 64) -> dict[str, tuple[str, tuple[int, ...]]]:
    stem = f"model.layers.{layer}.mlp.experts"
    return {
        f"{stem}.down_proj_blocks": ("U8", (2, rows, 1, 16)),
        f"{stem}.down_proj_scales": ("U8", (2, rows, 1)),
        f"{stem}.gate_up_proj_blocks": ("U8", (2, 64, 2, 16)),
        f"{stem}.gate_up_proj_scales": ("U8", (2, 64, 2)),
        f"{stem}.down_proj_bias": ("BF16", (2, rows)),
    }


def linear(name: str, *, static: bool = False) -> dict[str, tuple[str, tuple[int, ...]]]:
    found = {f"{name}.weight": ("F8_E4M3", (8, 4)), f"{name}.weight_scale": ("F32", (1,))}
    return found | ({f"{name}.input_scale": ("F32", (1,))} if static else {})
