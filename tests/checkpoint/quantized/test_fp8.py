"""FP8 tensors: what is stored is within half a step of what is wanted, and what came from the format stays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.quantized_samples import (
    BLOCK,
    block_storage,
    numbers,
    projection,
    reader,
    row_storage,
    spread,
    store,
    tensor_storage,
    torch_tensor,
)
from weight_edit.checkpoint.quantized.fp8 import Fp8Block, Fp8Scaled, TensorSpec
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Storage
from weight_edit.errors import UsageError

SHAPES = [(128, 256), (200, 300), (1, 1), (130, 128), (2, 130, 140)]
KINDS = ["random", "tiny", "huge", "zero", "outlier", "mixed"]


def values_of(kind: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(shape)
    if kind == "outlier":
        noise[..., 0, 0] = 1e4
    scale = {"tiny": 1e-30, "huge": 1e30, "zero": 0.0}.get(kind, 0.02)
    if kind == "mixed":
        # Numbers of all sizes, down to far below the smallest step.
        noise *= 2.0 ** generator.integers(-30, 3, shape)
    return noise * scale


def stored_scales(storage: Storage, parts: dict[str, np.ndarray], block: tuple[int, int]) -> np.ndarray:
    """A scale for each number, read by torch."""
    dtype, shape = storage.parts["s"]
    scale = torch_tensor(parts["s"], "F8_E8M0" if dtype == "U8" else dtype, shape)
    if isinstance(storage, Fp8Scaled):
        scale = scale.reshape(-1, 1, 1)
        block = (storage.rows, storage.cols)
    wide = spread(scale.float(), block, storage.rows, storage.cols)
    return wide.numpy().reshape(storage.slabs, storage.rows, storage.cols)


def check_half_a_step(values: np.ndarray, decoded: np.ndarray, scales: np.ndarray) -> None:
    """The step of e4m3 at a number is 2^-3 of its power of two, and at least 2^-9, times the scale."""
    values = values.reshape(decoded.shape)
    exponent = np.frexp(np.abs(values) / scales)[1] - 1
    step = 2.0 ** (np.maximum(exponent, -6) - 3) * scales
    assert (np.abs(decoded - values) <= step / 2 * (1 + 1e-12)).all()


CASES = {
    "block-f32": (lambda shape: block_storage(shape), BLOCK, 2.0**-22),
    "block-bf16": (lambda shape: block_storage(shape, "BF16"), BLOCK, 2.0**-7),
    "block-e8m0": (lambda shape: block_storage(shape, "F8_E8M0"), BLOCK, 1.0),
    "block-u8": (lambda shape: block_storage(shape, "U8"), BLOCK, 1.0),
    "block-f32-powers": (lambda shape: block_storage(shape, "F32", True), BLOCK, 1.0),
    "row-f32": (lambda shape: row_storage(shape), None, 2.0**-22),
    "row-bf16": (lambda shape: row_storage(shape, "BF16"), None, 2.0**-7),
    "tensor-f32": (lambda shape: tensor_storage(shape), BLOCK, 2.0**-22),
    "tensor-bf16": (lambda shape: tensor_storage(shape, "BF16"), BLOCK, 2.0**-7),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_within_half_a_step_of_what_is_wanted(case: str, shape: tuple[int, ...], kind: str) -> None:
    make, block, slack = CASES[case]
    storage = make(shape)
    values = values_of(kind, shape)
    parts = store(storage, values)
    scales = stored_scales(storage, parts, block or (1, shape[-1]))
    decoded = numbers(storage, parts)
    check_half_a_step(values, decoded, scales)
    # As torch reads it, and with a step that is no larger than it has to be.
    codes = torch_tensor(parts["w"], "F8_E4M3", decoded.shape).to(torch.float64).numpy()
    assert np.array_equal(decoded, codes * scales)
    if kind not in ("zero", "tiny"):
        tight = np.abs(decoded).reshape(storage.slabs, -1).max(axis=1) / scales.reshape(storage.slabs, -1).max(axis=1)
        assert (tight >= 448 / (1 + slack) - 16).all()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    spread_of=st.integers(0, 40),
    shift=st.integers(-90, 90),
    dtype=st.sampled_from(["F32", "BF16", "F8_E8M0"]),
)
def test_within_half_a_step_whatever_the_numbers(
    rows: int, cols: int, seed: int, spread_of: int, shift: int, dtype: str
) -> None:
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((rows, cols)) * 2.0 ** (shift + generator.integers(-spread_of, 1, (rows, cols)))
    shape = (rows, cols)
    storage = Fp8Block(
        TensorSpec("w", "F8_E4M3", shape), TensorSpec("s", dtype, (-(-rows // 3), -(-cols // 4))), (3, 4)
    )
    parts = store(storage, values)
    scale = torch_tensor(parts["s"], *storage.parts["s"])
    wide = spread(scale.float(), (3, 4), rows, cols).numpy()
    check_half_a_step(values, numbers(storage, parts), wide[None])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_stored_stays_bit_for_bit(case: str, kind: str) -> None:
    """The largest code of a block of ours is +-448, or more than 224 under a power of two: it gives its scale back."""
    storage = CASES[case][0]((130, 260))
    parts = store(storage, values_of(kind, (130, 260)))
    again = store(storage, numbers(storage, parts))
    assert np.array_equal(numbers(storage, again), numbers(storage, parts))
    if "e8m0" not in case and "u8" not in case and "powers" not in case:
        assert all(np.array_equal(again[name], parts[name]) for name in parts)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_any_codes_under_powers_of_two_keep_their_numbers(seed: int) -> None:
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, 8 * 8, dtype=np.uint8) & generator.integers(0, 256, dtype=np.uint8)
    codes[(codes & 127) == 127] = 1
    storage = Fp8Block(TensorSpec("w", "F8_E4M3", (8, 8)), TensorSpec("s", "F8_E8M0", (2, 2)), (4, 4))
    parts = {"w": codes, "s": generator.integers(20, 240, 4, dtype=np.uint8)}
    wanted = numbers(storage, parts)
    assert np.array_equal(numbers(storage, store(storage, wanted)), wanted)


def test_codes_of_a_row_of_blocks_without_the_largest_move_by_less_than_half_a_step() -> None:
    """A scale that a block's largest number does not give back is made anew: all that holds then is the half step."""
    storage = block_storage((4, 8))
    parts = {"w": np.full(32, 0x30, np.uint8), "s": np.array([0.37], np.float32).view(np.uint8)}
    wanted = numbers(storage, parts)
    again = store(storage, wanted)
    assert not np.array_equal(again["s"], parts["s"])
    check_half_a_step(wanted, numbers(storage, again), stored_scales(storage, again, BLOCK))


def edit(storage: Storage, parts: dict[str, np.ndarray], width: int, along_rows: bool = True) -> dict[str, np.ndarray]:
    edited = EditedTensor(source=storage, target=storage, map=projection(width), along_rows=along_rows)
    return {name: np.concatenate(list(edited.blocks(name, reader(parts)))) for name in storage.parts}


@pytest.mark.parametrize("make", [block_storage, row_storage, tensor_storage])
@pytest.mark.parametrize("shape", [(200, 300), (3, 140, 150)])
@pytest.mark.parametrize("along_rows", [True, False])
def test_an_edit_is_the_formula_within_half_a_step(make, shape: tuple[int, ...], along_rows: bool) -> None:
    storage = make(shape)
    parts = store(storage, values_of("random", shape))
    before = numbers(storage, parts)
    width = shape[-2] if along_rows else shape[-1]
    v = projection(width).left
    wanted = before - v @ (v.T @ before) if along_rows else before - (before @ v) @ v.T
    after = edit(storage, parts, width, along_rows)
    block = (1, shape[-1]) if make is row_storage else BLOCK
    check_half_a_step(wanted, numbers(storage, after), stored_scales(storage, after, block))
    assert all(after[name].size == parts[name].size for name in parts)


@pytest.mark.parametrize("make", [block_storage, row_storage, tensor_storage])
@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_a_bad_scale_is_refused(make, bad: float) -> None:
    storage = make((4, 8))
    parts = store(storage, values_of("random", (4, 8)))
    parts["s"][:4] = np.array([bad], np.float32).view(np.uint8)
    with pytest.raises(UsageError, match="'s' has 1 scales that are negative or not finite"):
        edit(storage, parts, 4)


def test_a_scale_of_zero_means_zeros_and_becomes_one() -> None:
    storage = block_storage((4, 8))
    parts = {"w": np.arange(32, dtype=np.uint8), "s": np.zeros(4, np.uint8)}
    after = edit(storage, parts, 4)
    assert not numbers(storage, after).any()
    assert after["s"].view(np.float32).tolist() == [1.0]


def test_a_code_that_is_no_number_is_refused() -> None:
    storage = block_storage((4, 8))
    parts = store(storage, values_of("random", (4, 8)))
    parts["w"][5] = 0x7F
    with pytest.raises(UsageError, match="'w' has 1 NaN or infinite values"):
        edit(storage, parts, 4)


def test_numbers_that_bfloat16_cannot_hold_are_refused() -> None:
    storage = block_storage((4, 8))
    parts = store(storage, values_of("random", (4, 8)))
    parts["s"] = np.array([3e38], np.float32).view(np.uint8)
    with pytest.raises(UsageError, match="too large for the format"):
        edit(storage, parts, 4)
