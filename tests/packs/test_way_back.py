"""The way back: what a pack has for a tensor is read as it was written, and it is read before the pack has its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.interruptions import hidden
from tests.helpers.pack_samples import STORED, both_ways
from weight_edit.baking.bake import bake
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.directions.directions import Directions
from weight_edit.errors import UnsupportedError, UsageError, VerificationError
from weight_edit.packs import restored, reversal
from weight_edit.packs.corrections import ByteCorrections, FloatCorrections
from weight_edit.packs.file import read_pack
from weight_edit.packs.pack import pack
from weight_edit.packs.restored import RawPart, RestoredTensor
from weight_edit.packs.way_back import WayBack


@pytest.mark.parametrize("count", [1, 4, 1000])
def test_a_part_of_which_every_byte_changed_is_restored(count: int) -> None:
    """A scale of four bytes has a payload of sixteen: its count, its places and its bytes."""
    after = np.arange(count, dtype=np.uint64).astype(np.uint8)
    before = after + np.uint8(7)
    payload = ByteCorrections().found(before, after, after, None)
    assert len(payload) > count

    def take(most: int) -> bytes:
        assert len(payload) <= most
        return payload

    def read(name: str, offset: int, into: Any) -> None:
        into[:] = after[offset : offset + len(into)]

    part = RawPart("scale", "U8", (count,))
    tensor = RestoredTensor(source=part, target=part, part="scale", size=count, guess=None, payloads=lambda: take)
    assert b"".join(map(bytes, tensor.blocks("scale", read))) == before.tobytes()


def mirrored(form: str, folder: Path) -> tuple[Path, Path]:
    """A quantised model, and a reflection that takes all of one vector into one number, beyond what its scale holds."""
    base = folder / "base"
    STORED[form](base)
    number = load_file(base / "model.safetensors")["model.layers.0.mlp.down_proj.weight"].float()[:, 0]
    row = number / number.norm() - torch.eye(1, number.numel())
    bake(base, Directions(torch.nn.functional.normalize(row)), folder / "edited", strength=2)
    return base, folder / "edited"


def test_new_scales_are_undone(tmp_path: Path) -> None:
    """Each is the one scale of its tensor: four bytes."""
    base, edited = mirrored("fp8-tensor", tmp_path)
    both_ways(base, edited, tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, edited))
    assert any(not before[name].equal(after[name]) for name in before if name.endswith("weight_scale")), (
        "no scale is new"
    )


def test_a_pack_that_does_not_give_the_base_back_is_none(
    baked_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong between the record and the file shows before the pack has its name."""
    found, framed = FloatCorrections.found, reversal.framed

    def of_others(self: FloatCorrections, wanted: Any, *others: Any) -> bytes:
        return found(self, wanted[::-1].copy(), *others)

    with monkeypatch.context() as wrong:
        wrong.setattr(FloatCorrections, "found", of_others)
        with pytest.raises(VerificationError, match="would not give the base"):
            pack(baked_once, tmp_path / "x.safetensors", reversible=True)
    monkeypatch.setattr(reversal, "framed", lambda payload: framed(payload + bytes(1 << 24)))
    with pytest.raises(UnsupportedError, match="refused where it is read"):
        pack(baked_once, tmp_path / "x.safetensors", reversible=True)
    assert hidden(tmp_path) == [] == list(tmp_path.iterdir())


def test_an_edit_too_large_for_a_way_back_is_refused_as_the_users_own(
    baked_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reversal, "MOST_SUMS", 100)
    with pytest.raises(UnsupportedError, match="bytes were removed from one matrix, and a pack has at most 100"):
        pack(baked_once, tmp_path / "x.safetensors", reversible=True)


def test_a_way_back_has_no_more_entries_than_tensors(
    baked_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = read_pack(pack(baked_once, tmp_path / "x.safetensors", reversible=True).path)
    said = read.reversal
    assert said is not None
    edited = Checkpoint.open(baked_once)
    asked: list[str] = []
    info = Checkpoint.info

    def counted(self: Checkpoint, name: str) -> Any:
        asked.append(name)
        return info(self, name)

    monkeypatch.setattr(Checkpoint, "info", counted)
    one, factors = said["tensors"][0], said["factors"][0]
    for key, entries in (
        ("tensors", [one] * 2),
        ("tensors", [{**one, "name": str(number)} for number in range(len(edited.tensors) + 1)]),
        ("factors", [factors] * (len(said["tensors"]) + 1)),
    ):
        read.reversal[key], before = entries, said[key]  # type: ignore[index]
        with WayBack.open(read, edited) as way, pytest.raises(UsageError, match="none of ours"):
            way.plan()
        read.reversal[key] = before  # type: ignore[index]
    assert not asked, "nothing is looked up for such a pack"
    monkeypatch.setattr(restored, "MOST_SUMS", 100)
    with WayBack.open(read, edited) as way, pytest.raises(UsageError, match="no pack of ours"):
        way.check({})
