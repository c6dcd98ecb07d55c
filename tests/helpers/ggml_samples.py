"""Random blocks of GGML's formats."""

import gguf
import numpy as np

from weight_edit.checkpoint.quantized.ggml import KINDS, Ggml


def random_blocks(kind: str, rows: int, cols: int, seed: int = 0, real: bool = False) -> np.ndarray:
    """The bytes of a matrix of random codes and scales; `real`, where scales are as quantisers choose them.

    Real ones are of normal numbers, rounded to grids that fit them.
    """
    generator = np.random.default_rng(seed)
    layout = KINDS[kind]
    blocks = generator.integers(0, 256, (rows * cols // layout.numbers, layout.size), dtype=np.uint8)
    scales = generator.uniform(0.5, 1.0, (len(blocks), 2)) * 0.01
    if not real:
        scales *= generator.choice([-1, 1], scales.shape)
    for place, column in zip(layout.halves, scales.T, strict=False):
        blocks[:, place : place + 2] = column.astype("<f2").view(np.uint8).reshape(-1, 2)
    if kind == "MXFP4":
        blocks[:, 0] = generator.integers(115, 122, len(blocks))
    if not real:
        return blocks.reshape(-1)
    if kind in ("Q4_1", "Q5_1"):
        blocks[:, 2:4] = (-scales[:, 0] * layout.last / 2).astype("<f2").view(np.uint8).reshape(-1, 2)
    storage = Ggml("w", kind, (rows, cols))
    strip = {"w": blocks.reshape(-1)}
    lowest, highest = layout.ends(storage._blocks(strip, 0, cols))
    middle, size = (lowest + highest) / 2, (highest - lowest) / 5
    values = generator.standard_normal((*middle.shape, layout.sub)) * size[..., None] + middle[..., None]
    storage.put_codes(storage.neighbours(values.reshape(rows, cols), 0, strip).nearest(), 0, strip)
    assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == (layout.numbers, layout.size)
    return strip["w"]
