"""A pack gives the published bytes back, and the base's: every kind of edit, every kind of storage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.checkpoint_samples import content
from tests.helpers.edit_kinds import EDITS, directions
from tests.helpers.families import save_family
from tests.helpers.integer_models import llama as integers
from tests.helpers.quantized_models import gpt_oss, llama_compressed, qwen3_fine_grained
from tests.helpers.quantiser_models import llama as of_quantisers
from weight_edit.baking.bake import bake
from weight_edit.directions.file import read_rows
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("family", "name", "options"), EVERY_EDIT)
def test_an_edit_is_made_again_and_undone(
    family: str, name: str, options: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    base = save_family(family, tmp_path / "base", dtype=dtype)
    (base / "README.md").write_text("---\nlicense: mit\n---\nThe base.\n")
    given = {"kind": name, **EDITS_HERE[name]}
    bake(base, directions(centred=True), tmp_path / "edited", **given, **options)
    both_ways(base, tmp_path / "edited", tmp_path)


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


@pytest.mark.parametrize("form", sorted(STORED))
@pytest.mark.parametrize("rounding", ["balanced", "nearest"])
def test_quantised_edits_are_made_again_and_undone(form: str, rounding: str, tmp_path: Path) -> None:
    STORED[form](tmp_path / "base")
    width = json.loads((tmp_path / "base" / "config.json").read_text())["hidden_size"]
    rows = torch.nn.functional.normalize(torch.randn(1, width, generator=torch.Generator().manual_seed(1)))
    from weight_edit.directions.directions import Directions

    bake(tmp_path / "base", Directions(rows), tmp_path / "edited", rounding=rounding)
    both_ways(tmp_path / "base", tmp_path / "edited", tmp_path)
