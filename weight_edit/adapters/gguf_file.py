"""The GGUF files that llama.cpp reads beside a model: a LoRA adapter, and a control vector.

A control vector's `direction.N` is added to the output of block N, counted from 0, in front of block N + 1. llama.cpp
has no place for one behind block 0 (src/llama-adapter.cpp), so that nothing can enter in front of blocks 0 and 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from weight_edit.adapters.gguf_lora import GgufFactors
from weight_edit.errors import UnsupportedError
from weight_edit.utils.arrays import Floats

LORA, VECTOR = "adapter.gguf", "control-vector.gguf"
_FIRST = 2
"""The first block at whose input llama.cpp can add a vector."""


def write_lora(path: Path, factors: Sequence[GgufFactors], architecture: str, base: str) -> None:
    """Write an adapter whose scale 1 is the edit.

    Args:
        architecture: llama.cpp's name of it.
        base: the model's name.
    """
    rank = max(each.rank for each in factors)
    writer = _writer(path, architecture)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_string("general.name", f"edit of {base}")
    writer.add_float32("adapter.lora.alpha", float(rank))
    for each in factors:
        writer.add_tensor(f"{each.name}.lora_a", each.a)
        # What is read is multiplied with alpha over the tensor's own rank.
        writer.add_tensor(f"{each.name}.lora_b", each.b * np.float32(each.rank / rank))
    _finish(writer)


def check_vectors(vectors: Mapping[int, Floats], n_layers: int) -> None:
    """Refuse vectors in front of blocks that llama.cpp cannot add them to.

    Raises:
        UnsupportedError: names the block.
    """
    early = next((layer for layer in sorted(vectors) if layer < _FIRST), None)
    if early is not None:
        raise UnsupportedError(
            f"llama.cpp's control vectors are added behind block 1 and later ones, which is in front of blocks "
            f"{_FIRST} to {n_layers - 1}, and not of {early}; choose another layer, or use bake",
            option="at",
        )


def write_vector(path: Path, vectors: Mapping[int, Floats], architecture: str, base: str) -> None:
    """Write a control vector whose scale 1 is the addition.

    Args:
        vectors: block -> what is added at its input, (d_model,).
        architecture: the model's, by llama.cpp's name.
        base: the model's name.
    """
    writer = _writer(path, "controlvector")
    writer.add_string("general.name", f"addition to {base}")
    writer.add_string("controlvector.model_hint", architecture)
    writer.add_int32("controlvector.layer_count", len(vectors))
    for layer, vector in sorted(vectors.items()):
        writer.add_tensor(f"direction.{layer - 1}", np.ascontiguousarray(vector, np.float32))
    _finish(writer)


def _writer(path: Path, architecture: str) -> Any:
    from gguf import GGUFWriter

    return GGUFWriter(path, architecture)


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
