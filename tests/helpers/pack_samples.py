"""Edits and storages of which packs are made, and the way there and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.helpers.checkpoint_samples import content
from tests.helpers.edit_kinds import EDITS, directions
from tests.helpers.families import save_family
from tests.helpers.integer_models import llama as integers
from tests.helpers.quantiser_models import llama as of_quantisers
from tests.helpers.quantized_models import gpt_oss, llama_compressed, qwen3_fine_grained
from weight_edit.baking.bake import bake
from weight_edit.directions.directions import Directions
from weight_edit.packs.apply import apply
from weight_edit.packs.pack import pack
from weight_edit.packs.undo import undo

EVERY_EDIT = [
    ("llama-tied", "ablate", {}),
    ("llama-tied", "ablate-part", {}),
    ("llama-tied", "ablate", {"embeddings": "untie"}),
    ("gpt2", "ablate-kernel", {}),
    ("llama", "norm-preserving", {}),
    ("llama", "affine-shifted", {}),
    ("llama", "erase", {}),
    ("llama-tied", "add", {}),
    ("llama", "reflect-at", {}),
    ("gemma2", "ablate", {}),
    ("mixtral", "norm-preserving", {}),
]
EDITS_HERE: dict[str, dict[str, Any]] = {**EDITS, "reflect-at": {"kind": "reflect", "at": (1,)}}


def edited_family(
    family: str, name: str, options: dict[str, Any], folder: Path, dtype: torch.dtype = torch.bfloat16
) -> tuple[Path, Path]:
    """A random model with a card, and an edit of it."""
    base = save_family(family, folder / "base", dtype=dtype)
    (base / "README.md").write_text("---\nlicense: mit\n---\nThe base.\n")
    given = {"kind": name, **EDITS_HERE[name]}
    bake(base, directions(centred=True), folder / "edited", **given, **options)
    return base, folder / "edited"


STORED: dict[str, Callable[[Path], object]] = {
    "fp8-blocks": qwen3_fine_grained,
    "fp8-tensor": lambda folder: llama_compressed(folder, "tensor"),
    "fp8-channel": lambda folder: llama_compressed(folder, "channel"),
    "mxfp4": gpt_oss,
    "gptq": lambda folder: integers(folder, "gptq"),
    "gptq-act-order": lambda folder: integers(folder, "gptq-act-order"),
    "awq": lambda folder: integers(folder, "awq"),
    "pack": lambda folder: integers(folder, "pack-zeros"),
    "int8": lambda folder: integers(folder, "int8"),
    "nvfp4": lambda folder: of_quantisers(folder, "nvfp4-modelopt"),
    "nvfp4-compressed": lambda folder: of_quantisers(folder, "nvfp4-compressed"),
    "bnb8": lambda folder: of_quantisers(folder, "int8"),
    "bnb4": lambda folder: of_quantisers(folder, "nf4"),
    "bnb4-nested": lambda folder: of_quantisers(folder, "nf4-nested"),
}


def edited_storage(form: str, rounding: str, folder: Path) -> tuple[Path, Path]:
    """A random model in one of `STORED`, and an ablation of it."""
    base = folder / "base"
    STORED[form](base)
    width = json.loads((base / "config.json").read_text())["hidden_size"]
    rows = torch.nn.functional.normalize(torch.randn(1, width, generator=torch.Generator().manual_seed(1)))
    bake(base, Directions(rows), folder / "edited", rounding=rounding)
    return base, folder / "edited"


def both_ways(base: Path, edited: Path, folder: Path) -> int:
    """Pack, apply and undo; the pack's size."""
    packed = pack(edited, folder / "edit.safetensors", base=base, reversible=True)
    assert packed.reversible
    assert packed.size == (folder / "edit.safetensors").stat().st_size
    applied = apply(packed.path, folder / "again", base=base)
    assert applied.published
    assert content(folder / "again") == content(edited)
    undone = undo(edited, packed.path, folder / "back")
    expected = {base.name: base.read_bytes()} if base.is_file() else content(base)
    assert content(folder / "back") == expected
    assert undone.bytes_total == sum(map(len, expected.values()))
    return packed.size
