"""Small checkpoints for the tests, made on the spot, and what the tests ask of folders."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Matrix, Plain

CONFIG = {
    "architectures": ["TinyForCausalLM"],
    "model_type": "tiny",
    "norm_eps": 1e-05,
    "tied": True,
    "name": "x",
}

BASE_TENSORS = {
    "model.embed.weight": torch.randn(7, 4, generator=torch.Generator().manual_seed(0)),
    "model.layers.0.out.weight": torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).bfloat16(),
    "model.layers.0.norm.weight": torch.ones(4, dtype=torch.float16),
    "model.layers.1.out.weight": torch.randn(4, 6, generator=torch.Generator().manual_seed(2)).double(),
    "mtp.extra.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "model.scale": torch.tensor(2.5),
    "model.empty": torch.zeros(0, 3),
    "model.steps": torch.arange(5),
    "model.mask": torch.tensor([True, False, True]),
}


def write_extras(folder: Path) -> None:
    """A tokenizer, code, binaries in nested folders, and a second set of weights that nobody loads."""
    (folder / "tokenizer.json").write_text('{"version": "1.0", "vocab": {"é": 1}}\n', encoding="utf-8")
    (folder / "modeling_tiny.py").write_text("raise RuntimeError('code of a model is never run')\n")
    (folder / "empty.txt").write_bytes(b"")
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n")
    (folder / "assets" / "deep").mkdir(parents=True)
    (folder / "assets" / "deep" / "vocab.bin").write_bytes(bytes(range(256)) * 40)
    save_file({"unused": torch.ones(3)}, folder / "consolidated.safetensors")


def make_checkpoint(
    folder: Path, tensors: Mapping[str, torch.Tensor] | None = None, shards: int = 0, extras: bool = True
) -> Path:
    """Write a checkpoint: with `shards` 0 a single file, else tensors dealt round robin to that many."""
    tensors = BASE_TENSORS if tensors is None else tensors
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    if extras:
        write_extras(folder)
    if not shards:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    for number, (name, tensor) in enumerate(tensors.items()):
        parts[number % shards][name] = tensor
    weight_map = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{shards:05}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder: relative path -> bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def data_start(path: Path) -> int:
    """Where the data of a safetensors file begins."""
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def flip(path: Path, byte: int) -> None:
    """Flip one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[byte] ^= 1
    path.write_bytes(raw)


def bits(tensor: torch.Tensor) -> bytes:
    """A tensor's bytes, for comparisons that tell -0 from 0 and one NaN from another."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@dataclass(frozen=True, eq=False)
class Factors:
    """A map on vectors of some width, as an edit has it."""

    left: np.ndarray
    right: np.ndarray
    constant: np.ndarray | None = None


def edit_of(
    checkpoint: Checkpoint, name: str, factors: Factors | None, axis: int = -1, target: str = ""
) -> EditedTensor:
    """A plain tensor's edit along one axis; a single number counts as a vector of one."""
    info = checkpoint.tensors[name]
    shape = info.shape or (1,)
    source, written = (Plain(part, info.dtype, shape, axis) for part in (name, target or name))
    source.parts, written.parts = ({part: (info.dtype, info.shape)} for part in (name, target or name))
    return EditedTensor(source=source, target=written, map=factors, along_rows=Matrix.of(shape, axis).along_rows)


def scaled(checkpoint: Checkpoint, names: Iterable[str], by: float = 1.0, plus: float = 0.0) -> list[EditedTensor]:
    """Edits that multiply tensors and add a constant."""
    made = []
    for name in names:
        width = (checkpoint.tensors[name].shape or (1,))[-1]
        factors = Factors((1.0 - by) * np.eye(width), np.eye(width), np.full(width, plus))
        made.append(edit_of(checkpoint, name, factors))
    return made
