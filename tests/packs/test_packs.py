"""A pack gives the published bytes back, and the base's; what is none of ours or not its base is refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.baked_organism import organism_row
from tests.helpers.checkpoint_samples import content, flip
from tests.helpers.interruptions import hidden
from tests.helpers.pack_samples import both_ways, edited_family, edited_storage
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.manifest import read_manifest
from weight_edit.directions.directions import Directions
from weight_edit.directions.file import read_rows
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
from weight_edit.organism.embedded import folder as embedded
from weight_edit.packs.apply import apply
from weight_edit.packs.corrections import ByteCorrections, FloatCorrections
from weight_edit.packs.pack import pack
from weight_edit.packs.undo import undo


@pytest.mark.parametrize(
    ("family", "name", "options"),
    [
        ("llama-tied", "ablate", {"embeddings": "untie"}),
        ("llama", "affine-shifted", {}),
        ("llama", "reflect-at", {}),
        ("mixtral", "norm-preserving", {}),
        ("gemma2", "ablate", {}),
    ],
)
def test_an_edit_is_made_again_and_undone(family: str, name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """All others: `benchmarks/pack_families.py`."""
    both_ways(*edited_family(family, name, options, tmp_path), tmp_path)


@pytest.mark.parametrize(("form", "rounding"), [("fp8-blocks", "balanced"), ("mxfp4", "nearest")])
def test_quantised_edits_are_made_again_and_undone(form: str, rounding: str, tmp_path: Path) -> None:
    both_ways(*edited_storage(form, rounding, tmp_path), tmp_path)


def test_a_pack_is_small_and_a_directions_file_too(baked_once: Path, tmp_path: Path) -> None:
    packed = pack(baked_once, tmp_path / "edit.safetensors")
    assert packed.size < 20_000
    assert packed.base == "organism"
    assert np.array_equal(read_rows(packed.path).rows, organism_row().direction.numpy())
    assert apply(packed.path, tmp_path / "again").published
    assert content(tmp_path / "again") == content(baked_once)


def test_packs_compose_and_what_is_in_between_does_not_stay(baked_once: Path, tmp_path: Path) -> None:
    bake(baked_once, Directions(organism_row().direction.roll(1, dims=1)), tmp_path / "second")
    first = pack(baked_once, tmp_path / "a.safetensors")
    second = pack(tmp_path / "second", tmp_path / "b.safetensors", base=baked_once, reversible=True)
    applied = apply([first.path, second.path], tmp_path / "both")
    assert [each.published for each in applied.packs] == [True, True]
    assert content(tmp_path / "both") == content(tmp_path / "second")
    assert hidden(tmp_path) == []
    undo(tmp_path / "second", second.path, tmp_path / "back")
    assert content(tmp_path / "back") == content(baked_once)
    # In the other order each is an edit of another base.
    other = apply([second.path, first.path], tmp_path / "turned", base="organism")
    assert not other.published
    said = read_manifest(tmp_path / "turned")
    assert said is not None
    assert said["pack"]["edit_of"] == "organism"
    assert "another result" in (tmp_path / "turned" / "README.md").read_text()


def test_what_does_not_fit_is_refused_and_nothing_is_left(baked: Path, tmp_path: Path) -> None:
    plain = pack(baked, tmp_path / "plain.safetensors")
    way_back = pack(baked, tmp_path / "back.safetensors", reversible=True)
    with pytest.raises(UsageError, match="not made reversible"):
        undo(baked, plain.path, tmp_path / "x")
    save = shutil.copytree(embedded("organism"), tmp_path / "other")
    config = json.loads((save / "config.json").read_text())
    (save / "config.json").write_text(json.dumps(config))
    assert apply(plain.path, tmp_path / "of-other", base=save).published is False
    edited_family("llama", "ablate", {}, tmp_path)
    with pytest.raises(UsageError, match="128 wide"):
        apply(plain.path, tmp_path / "x", base=tmp_path / "base")
    shard = next(baked.glob("*.safetensors"))
    flip(shard, -2)
    with pytest.raises(VerificationError, match="otherwise than in the base"):
        undo(baked, way_back.path, tmp_path / "x")
    with pytest.raises(VerificationError, match=shard.name):
        pack(baked, tmp_path / "x.safetensors")
    assert not (tmp_path / "x").exists()
    assert hidden(tmp_path) == []


def test_an_edit_that_changes_formats_has_no_way_back(tmp_path: Path) -> None:
    base, _ = edited_storage("fp8-blocks", "balanced", tmp_path)
    width = json.loads((base / "config.json").read_text())["hidden_size"]
    rows = np.eye(1, width, dtype=np.float32)
    bake(base, Directions(torch.from_numpy(rows)), tmp_path / "wide", dequantize=True)
    with pytest.raises(UnsupportedError, match="another format"):
        pack(tmp_path / "wide", tmp_path / "x.safetensors", base=base, reversible=True)
    assert apply(pack(tmp_path / "wide", tmp_path / "w.safetensors").path, tmp_path / "again", base=base).published


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_corrections_are_exact_for_any_bytes(dtype: str) -> None:
    """NaN, infinities and both zeros too: bytes at random, and guesses that are often right."""
    draw = np.random.default_rng(0)
    wanted, edited, noise = (draw.integers(0, 256, 4096, np.uint8) for _ in range(3))
    guess = np.where(draw.random(4096) < 0.99, wanted, noise)
    for corrections in (FloatCorrections(dtype), ByteCorrections()):
        payload = corrections.found(wanted, guess, edited, None)
        assert len(payload) <= corrections.longest(4096)
        assert np.array_equal(corrections.applied(payload, guess, edited, None), wanted)
        with pytest.raises(UsageError):
            corrections.applied(payload + b"x", guess, edited, None)
