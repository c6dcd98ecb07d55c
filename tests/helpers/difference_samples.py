"""Pairs of checkpoints of which it is known what the second was made with."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from weight_edit.difference.model_parts import ModelParts, Part
from weight_edit.directions.directions import Directions
from weight_edit.edits.projection import orthonormal_rows


def directions(k: int, width: int, seed: int = 3) -> Directions:
    """Random orthonormal rows."""
    rows = torch.randn(k, width, generator=torch.Generator().manual_seed(seed))
    return Directions(torch.as_tensor(orthonormal_rows(rows)).float())


def save_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], width: int | None, **config: object) -> Path:
    """A checkpoint of any tensors, whose config says how wide the stream is."""
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    said = {"architectures": ["AnyForCausalLM"], **({} if width is None else {"hidden_size": width}), **config}
    (folder / "config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def random_tensors(width: int, dtype: torch.dtype, layers: int = 4, seed: int = 0) -> dict[str, torch.Tensor]:
    """Writers, a reader, an embedding and a norm for each layer, with rows and columns of uneven size."""
    generator = torch.Generator().manual_seed(seed)

    def uneven(*shape: int) -> torch.Tensor:
        scales = [torch.randn(n, generator=generator).mul(0.4).exp() for n in shape]
        return (0.02 * torch.randn(*shape, generator=generator) * scales[0][:, None] * scales[1]).to(dtype)

    tensors = {"embed.weight": uneven(3 * width, width)}
    for layer in range(layers):
        tensors[f"layers.{layer}.down.weight"] = uneven(width, 2 * width)
        tensors[f"layers.{layer}.out.weight"] = uneven(width, width)
        tensors[f"layers.{layer}.up.weight"] = uneven(2 * width, width)
        tensors[f"layers.{layer}.norm.weight"] = torch.ones(width, dtype=dtype)
    return tensors


WRITERS = ("down.weight", "out.weight")


def ablated(tensors: Mapping[str, torch.Tensor], rows: torch.Tensor, strength: float = 1.0) -> dict[str, torch.Tensor]:
    """The writers of `random_tensors`, edited as other tools do it."""
    v = rows.float().T
    return {
        name: (t.float() - strength * v @ (v.T @ t.float())).to(t.dtype) if name.endswith(WRITERS) else t
        for name, t in tensors.items()
    }


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the principal angles between the spans of two sets of orthonormal rows."""
    return np.linalg.svd(a @ b.T, compute_uv=False)


def llama_parts(tensors: Mapping[str, torch.Tensor], mean_free: bool = False) -> ModelParts:
    """The parts of tensors that are called as in Llama, as its anatomy would give them."""
    parts: dict[str, Part] = {}
    for name in tensors:
        number = name.split(".")[2] if ".layers." in name else None
        layer = None if number is None else int(number)
        if name == "model.embed_tokens.weight":
            parts[name] = Part(role="embedding", layer=None, side="rows")
        elif name == "lm_head.weight":
            parts[name] = Part(role="unembedding", layer=None, side="rows", reads_behind="model.norm.weight")
        elif name.endswith(("o_proj.weight", "down_proj.weight")):
            parts[name] = Part(role="mlp" if "mlp" in name else "attention", layer=layer, side="columns")
        elif name.endswith("proj.weight"):
            norm = "post_attention_layernorm" if "mlp" in name else "input_layernorm"
            behind = f"model.layers.{layer}.{norm}.weight"
            parts[name] = Part(role="reader", layer=layer, side="rows", reads_behind=behind)
        elif name.endswith(("o_proj.bias", "down_proj.bias")):
            parts[name] = Part(role="mlp" if "mlp" in name else "attention", layer=layer, side=None, bias=True)
    layers = 1 + max((part.layer for part in parts.values() if part.layer is not None), default=-1)
    head = "lm_head.weight"
    tied = head not in tensors
    return ModelParts(
        parts=parts,
        layers=layers,
        tied=tied,
        embedding="model.embed_tokens.weight",
        unembedding=None if tied else head,
        reads_mean_free=mean_free,
    )
