"""Saved directions come back as they were, in the same bytes, and malformed files are refused by name."""

import json
import math
import os
import stat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from weight_edit.directions.directions import Directions, load_directions
from weight_edit.errors import UsageError


def example():
    rows = torch.linalg.qr(torch.randn(8, 2, generator=torch.Generator().manual_seed(0))).Q.T
    return Directions(rows, torch.arange(48.0).reshape(2, 3, 8), {"method": "made", "layer": 2, "kl": math.nan})


def test_what_is_saved_comes_back(tmp_path):
    path = tmp_path / "d.safetensors"
    example().save(path)
    found = load_directions(path)
    assert torch.equal(found.direction, example().direction)
    assert torch.equal(found.candidates, example().candidates)
    assert found.metadata == {"method": "made", "layer": 2, "kl": None}
    assert found.d_model == 8
    with safe_open(str(path), "pt") as file:
        assert json.loads(file.metadata()["weight_edit"])["layer"] == 2


def test_the_same_content_gives_the_same_bytes_and_replaces_an_older_file(tmp_path):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    second.write_bytes(b"older")
    example().save(first)
    backwards = dict(reversed(example().metadata.items()))
    Directions(example().direction, example().candidates, backwards).save(second)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_the_file_has_the_usual_permissions(tmp_path):
    example().save(tmp_path / "d.safetensors")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "d.safetensors").stat().st_mode) == 0o666 & ~umask


def test_nothing_is_left_when_saving_fails(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        example().save(tmp_path / "d.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="cannot be written"):
        example().save(tmp_path / "missing" / "d.safetensors")
    with pytest.raises(UsageError, match="is a folder"):
        example().save(tmp_path)


def saved(tmp_path, **tensors):
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "d.safetensors")
    return tmp_path / "d.safetensors"


def test_a_bare_vector_of_another_tool_is_taken(tmp_path):
    vector = torch.zeros(4, dtype=torch.bfloat16)
    vector[1] = 1
    found = load_directions(saved(tmp_path, direction=vector))
    assert found.direction.tolist() == [[0.0, 1.0, 0.0, 0.0]]
    assert found.direction.dtype == torch.float32
    assert (found.candidates, found.metadata) == (None, {})


BAD = {
    "no tensor `direction`": {"vector": torch.ones(2)},
    r"must be \(d_model,\)": {"direction": torch.ones(1, 1, 2)},
    "has shape": {"direction": torch.ones(0, 2)},
    "not a floating dtype": {"direction": torch.ones(2, dtype=torch.int64)},
    "NaN or infinite": {"direction": torch.tensor([math.nan, 1.0])},
    "NaN or": {"direction": torch.tensor([math.inf, 1.0])},
    "row 1 of `direction` is zero": {"direction": torch.eye(3)[:2] * torch.tensor([[1.0], [0.0]])},
    "not of unit length .* `orthonormalize=True`": {"direction": torch.tensor([3.0, 4.0])},
    "not orthogonal": {"direction": torch.tensor([[1.0, 0.0], [0.6, 0.8]])},
    "the tensor 'candidates' has shape": {"direction": torch.tensor([1.0, 0.0]), "candidates": torch.ones(2, 2, 3)},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_directions_are_named(tmp_path, message):
    with pytest.raises(UsageError, match=message):
        load_directions(saved(tmp_path, **BAD[message]))


def test_files_that_are_not_directions(tmp_path):
    with pytest.raises(UsageError, match="no directions file"):
        load_directions(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("hello, this is text")
    with pytest.raises(UsageError, match="not a safetensors file"):
        load_directions(tmp_path / "text")
    for text in ("{", "[]"):
        save_file({"direction": torch.tensor([1.0])}, tmp_path / "m", metadata={"weight_edit": text})
        with pytest.raises(UsageError, match="metadata `weight_edit`"):
            load_directions(tmp_path / "m")


@given(st.integers(1, 4), st.integers(0, 2**31))
def test_orthonormalizing_keeps_the_span(k, seed):
    import tempfile
    from pathlib import Path

    rows = torch.randn(k, 6, generator=torch.Generator().manual_seed(seed)) * 3
    with tempfile.TemporaryDirectory() as folder:
        found = load_directions(saved(Path(folder), direction=rows), orthonormalize=True).direction.double()
    torch.testing.assert_close(found @ found.T, torch.eye(k).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(rows.double() @ found.T @ found, rows.double(), atol=1e-4, rtol=1e-4)


def test_width_of_another_model():
    example().check_width(8)
    with pytest.raises(UsageError, match=r"8 wide, but .* 16 wide"):
        example().check_width(16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_directions_stored_in_half_precision_become_exact(tmp_path, dtype):
    rows = torch.linalg.qr(torch.randn(256, 3, generator=torch.Generator().manual_seed(0)))[0].T.to(dtype)
    found = load_directions(saved(tmp_path, direction=rows.contiguous())).direction.double()
    assert (found @ found.T - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-6
    assert (found - rows.double()).abs().max() < 1e-2
