"""Directions read without torch are those that are read with it."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from weight_edit.baking.bake import rows_of
from weight_edit.directions.directions import Directions, load_directions
from weight_edit.directions.file import read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_rows import packed, unpacked
from weight_edit.errors import UsageError


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_plain_floating_dtype(tmp_path, dtype):
    rows = torch.linalg.qr(torch.randn(64, 3, generator=torch.Generator().manual_seed(0)))[0].T.to(dtype).contiguous()
    path = tmp_path / "d.safetensors"
    save_file({"direction": rows, "candidates": torch.ones(1, 2, 64).to(dtype)}, path, metadata={"weight_edit": "{}"})
    found = read_rows(path)
    assert found.rows.dtype == np.float32
    assert np.abs(found.rows @ found.rows.T - np.eye(3)).max() < 1e-6
    loaded = load_directions(path)
    assert (loaded.direction.numpy() == found.rows).all()
    assert loaded.candidates.dtype == torch.float32
    # However they are given, an edit gets the same rows.
    for given in (path, str(path), found, loaded):
        assert (rows_of(given).rows == found.rows).all()


def test_formats_that_are_no_plain_numbers_are_refused(tmp_path):
    save_file({"direction": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / "d.safetensors")
    with pytest.raises(UsageError, match="F8_E4M3, not a floating dtype such as BF16"):
        read_rows(tmp_path / "d.safetensors")


def test_a_link_is_followed_and_metadata_kept(tmp_path):
    # The Hub's cache keeps its files as links.
    Directions(torch.tensor([[0.6, 0.8]]), None, {"layer": 3}).save(tmp_path / "d.safetensors")
    (tmp_path / "link").symlink_to(tmp_path / "d.safetensors")
    assert read_rows(tmp_path / "link").metadata == {"layer": 3}


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "d.safetensors"
    Directions(torch.tensor([[0.6, 0.8]])).save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"d\.safetensors is not a safetensors file"):
        read_rows(path)


def test_rows_in_memory():
    found = DirectionRows(torch.tensor([[0.6, 0.8]], dtype=torch.float64))
    assert found.rows.dtype == np.float32
    found.check_width(2)
    with pytest.raises(UsageError, match=r"2 wide, but .* 3 wide"):
        found.check_width(3)


def test_packing_is_exact():
    rows = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 2)))[0].T.astype(np.float32)
    assert (unpacked(packed(rows)) == rows).all()
    assert packed(torch.from_numpy(rows)) == packed(rows)
    for key, value in (("shape", [9, 2]), ("shape", [1, 2, 9]), ("float32", "?"), ("float32", "")):
        with pytest.raises(UsageError, match="malformed"):
            unpacked({**packed(rows), key: value})
