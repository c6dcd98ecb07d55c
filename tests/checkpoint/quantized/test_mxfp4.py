"""MXFP4: read as transformers reads it, the best power of two, and nothing changed that was in the format."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from tests.helpers.quantized_samples import (
    mxfp4_numbers,
    mxfp4_storage,
    numbers,
    projection,
    reader,
    store,
    torch_tensor,
)
from weight_edit.checkpoint.quantized.minifloat import E2M1
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.errors import UsageError

SHAPE = (3, 40, 2)


def random_parts(seed: int, low: int = 0, high: int = 255) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    size = int(np.prod(SHAPE))
    # Few bits in some groups, so that their largest number is small.
    masks = generator.choice(np.array([0xFF, 0x99, 0xAA, 0xBB, 0x88], np.uint8), size)
    blocks = generator.integers(0, 256, (size, 16), dtype=np.uint8) & masks[:, None]
    return {"b": blocks.reshape(-1), "s": generator.integers(low, high, size, dtype=np.uint8)}


def by_torch(parts: dict[str, np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    blocks, scales = torch_tensor(parts["b"], "U8", (*shape, 16)), torch_tensor(parts["s"], "U8", shape)
    return mxfp4_numbers(blocks, scales).numpy()


def test_numbers_are_those_of_transformers_transposed() -> None:
    parts = random_parts(0, 100, 150)
    blocks, scales = torch_tensor(parts["b"], "U8", (*SHAPE, 16)), torch_tensor(parts["s"], "U8", SHAPE)
    theirs = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    ours = numbers(mxfp4_storage(*SHAPE), parts)
    assert ours.shape == (3, 40, 64)
    assert np.array_equal(ours.transpose(0, 2, 1), theirs.numpy())
    assert np.array_equal(ours, by_torch(parts, SHAPE))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_came_from_the_format_stays(seed: int) -> None:
    storage = mxfp4_storage(*SHAPE)
    parts = random_parts(seed, 0, 254)
    wanted = numbers(storage, parts)
    assert np.array_equal(numbers(storage, store(storage, wanted)), wanted)


def check_half_a_step(
    values: np.ndarray, parts: dict[str, np.ndarray], shape: tuple[int, int, int], kept: np.ndarray | None = None
) -> None:
    """The step of e2m1 at a number is half its power of two, and at least a half, times the scale."""
    scales = np.repeat(2.0 ** (parts["s"].reshape(shape).astype(float) - 127), 32, axis=-1)
    exponent = np.frexp(np.abs(values) / scales)[1] - 1
    step = 2.0 ** (np.maximum(exponent, 0) - 1) * scales
    assert (np.abs(by_torch(parts, shape) - values) <= step / 2).all()
    # No larger power than needed: of a group that is made anew, the next lower one would cut the largest number by more
    # than half a step, and of one that is kept, no more than two bits are left unused.
    peaks = np.abs(values).reshape(*shape, 32).max(-1)
    power = 2.0 ** (parts["s"].reshape(shape).astype(float) - 127)
    least = parts["s"].reshape(shape) == 0
    unused = 3.0 if kept is None else np.where(parts["s"] == kept, 1.5, 3.0).reshape(shape)
    assert ((peaks == 0) | least | (peaks > power * unused)).all()


@pytest.mark.parametrize("kind", ["random", "tiny", "huge", "zero", "outlier"])
def test_within_half_a_step_of_what_is_wanted(kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 40, 64))
    values *= {"tiny": 1e-36, "huge": 1e36, "zero": 0.0}.get(kind, 1.0)
    if kind == "outlier":
        values[:, ::3, 5] = 1e4
    parts = store(mxfp4_storage(*SHAPE), values)
    check_half_a_step(values, parts, SHAPE)
    if kind == "zero":
        # Where the largest number is 0 any scale fits, such as the one that was there.
        assert set(parts["s"]) == {0}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(-100, 100), spread=st.integers(0, 12))
def test_within_half_a_step_whatever_the_numbers(seed: int, shift: int, spread: int) -> None:
    generator = np.random.default_rng(seed)
    size = (1, 6, 32)
    values = generator.uniform(-8, 8, size) * 2.0 ** (shift - generator.integers(0, spread + 1, size))
    parts = store(mxfp4_storage(1, 6, 1), values)
    check_half_a_step(values, parts, (1, 6, 1))


def test_no_power_without_a_cut_of_more_than_half_a_step_has_a_smaller_error() -> None:
    generator = np.random.default_rng(3)
    groups = generator.uniform(-6, 6, (400, 32))
    groups[:, 0] = generator.uniform(4, 8, 400)
    parts = store(mxfp4_storage(1, 400, 1), groups)
    assert np.array_equal(parts["s"] - 127, groups[:, 0] > 7)

    def error(scale: float) -> np.ndarray:
        gap = np.abs(E2M1.decode(E2M1.encode(groups / scale)) * scale - groups)
        cut = gap[:, 0] > 1 if scale == 1 else False
        return np.where(cut, np.inf, np.square(gap).sum(axis=1))

    # A power that is half as large cuts all the largest numbers; one of four times the size is as much too coarse.
    errors = np.stack([error(1.0), error(2.0), error(4.0)])
    assert np.array_equal(parts["s"] - 127, errors.argmin(axis=0))


def test_the_smallest_scale_there_is() -> None:
    values = np.full((1, 1, 32), 2.0**-140)
    parts = store(mxfp4_storage(1, 1, 1), values)
    assert parts["s"].tolist() == [0]
    assert not by_torch(parts, (1, 1, 1)).any()


def test_a_scale_that_is_no_number_is_refused() -> None:
    storage = mxfp4_storage(*SHAPE)
    parts = random_parts(1, 100, 120)
    parts["s"][7] = 255
    with pytest.raises(UsageError, match="'s' has 1 scales"):
        list(
            EditedTensor(source=storage, target=storage, map=projection(40), along_rows=True).blocks("b", reader(parts))
        )


def test_numbers_that_bfloat16_cannot_hold_are_refused() -> None:
    storage = mxfp4_storage(*SHAPE)
    parts = random_parts(1, 254, 255)
    with pytest.raises(UsageError, match="too large for the format"):
        list(
            EditedTensor(source=storage, target=storage, map=projection(40), along_rows=True).blocks("b", reader(parts))
        )


@pytest.mark.parametrize("along_rows", [True, False])
def test_an_edit_is_the_formula_within_half_a_step(along_rows: bool) -> None:
    storage = mxfp4_storage(*SHAPE)
    parts = random_parts(2, 118, 124)
    before = numbers(storage, parts)
    v = projection(40 if along_rows else 64).left
    wanted = before - v @ (v.T @ before) if along_rows else before - (before @ v) @ v.T
    edited = EditedTensor(source=storage, target=storage, map=projection(v.shape[0]), along_rows=along_rows)
    after = {name: np.concatenate(list(edited.blocks(name, reader(parts)))) for name in parts}
    check_half_a_step(wanted, after, SHAPE, parts["s"])


def test_zeros_of_both_signs_stay_as_they_are() -> None:
    storage = mxfp4_storage(1, 16, 2)
    codes = np.random.default_rng(0).integers(0, 256, 16 * 2 * 16, dtype=np.uint8)
    parts = {"b": codes, "s": np.full(16 * 2, 120, np.uint8)}
    strip = {name: raw.copy() for name, raw in storage.load(reader(parts), 0, 0, 16).items()}
    values = storage.decode(strip, 16, 0, 64)
    assert np.count_nonzero((values == 0) & np.signbit(values)) > 30
    storage.encode(values, 0, strip, 0.0)
    assert all(np.array_equal(strip[name], raw) for name, raw in parts.items())
