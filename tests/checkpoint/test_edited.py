"""Edited tensors are the formula in float64, rounded once; bfloat16 is rounded as torch rounds it."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.edit_samples import Map, random_map
from tests.helpers.edited_tensors import AXES, FORMATS, TORCH, order, random_tensor, reader
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.numbers import STORED, decode, encode
from weight_edit.checkpoint.tensor.storage import TILE, Matrix, Plain


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Float64 numbers rounded at once to a format, ties to even; too large ones stay as they are."""
    digits, least = FORMATS[dtype]
    exponent = np.maximum(np.frexp(values)[1] - 1, least)
    unit = np.ldexp(1.0, exponent - digits + 1)
    return np.rint(values / unit) * unit


def stored(values: np.ndarray, dtype: str) -> bytes:
    """Numbers that the format has, as its bytes."""
    # By way of float32, in which every bfloat16 and float16 number is exact.
    wide = torch.from_numpy(np.ascontiguousarray(values))
    narrow = wide if dtype == "F64" else wide.float().to(TORCH[dtype])
    return narrow.reshape(-1).view(torch.uint8).numpy().tobytes() if narrow.numel() else b""


def engine(tensor: torch.Tensor, dtype: str, axis: int, linear_map: Map) -> bytes:
    """The edited tensor's bytes as they would be written."""
    shape = tuple(tensor.shape)
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    storage = Plain("w", dtype, shape, axis)
    edited = EditedTensor(source=storage, target=storage, map=linear_map, along_rows=Matrix.of(shape, axis).along_rows)
    found = b"".join(block.tobytes() for block in edited.blocks("w", reader(raw)))
    assert len(found) == len(raw)
    return found


def formula(tensor: torch.Tensor, axis: int, linear_map: Map) -> tuple[np.ndarray, np.ndarray]:
    """`x - L (R^T x) + c` along an axis in torch's float64, and by how much float64 may be off."""
    x = tensor.double().movedim(axis, -1)
    left, right = torch.from_numpy(linear_map.left), torch.from_numpy(linear_map.right)
    wanted = x - (x @ right) @ left.T
    reach = x.abs() + (x.abs() @ right.abs()) @ left.abs().T
    if linear_map.constant is not None:
        wanted = wanted + torch.from_numpy(linear_map.constant)
        reach = reach + torch.from_numpy(linear_map.constant).abs()
    back = [part.movedim(-1, axis).contiguous().numpy() for part in (wanted, reach)]
    return back[0], back[1] * 2.0**-52 * (x.shape[-1] + linear_map.left.shape[1] + 3)


@pytest.mark.parametrize(("shape", "axis"), AXES, ids=str)
@pytest.mark.parametrize("dtype", FORMATS)
def test_the_formula_rounded_once(dtype, shape, axis):
    for seed, (rank, constant) in enumerate(itertools.product((1, 3, 17), (False, True))):
        tensor = random_tensor(shape, dtype, seed)
        linear_map = random_map(shape[axis], min(rank, shape[axis]), seed, constant)
        wanted, off = formula(tensor, axis, linear_map)
        found = engine(tensor, dtype, axis, linear_map)
        if dtype == "F64":
            # Sums in another order differ by more than the last place where the edit leaves little of a number.
            assert (np.abs(np.frombuffer(found).reshape(shape) - wanted) <= off).all()
            continue
        apart = np.abs(order(found, dtype) - order(stored(rounded(wanted, dtype), dtype), dtype))
        assert np.mean(apart == 0) >= 0.999
        assert apart.max() <= 1


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("axis", [0, 1])
def test_an_ablation_leaves_only_rounding(dtype, axis):
    """Projection, the edit that takes the most away: what is left along the direction is what rounding put there."""
    tensor = random_tensor((512, 512), dtype, 9)
    rows = np.linalg.qr(np.random.default_rng(2).standard_normal((512, 3)))[0]
    found = decode(np.frombuffer(engine(tensor, dtype, axis, Map(rows, rows)), np.uint8), dtype).reshape(512, 512)
    left = np.tensordot(rows, found, axes=(0, axis))
    before = np.tensordot(rows, tensor.double().numpy(), axes=(0, axis))
    # In float64 it is the sums themselves that round, not what is stored.
    digits = min(FORMATS[dtype][0], 47)
    assert np.linalg.norm(left) <= np.linalg.norm(before) * 2.0 ** (1 - digits)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(list(FORMATS)),
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 1 << 30),
)
def test_any_shape_axis_and_rank(shape, axis, dtype, rank, constant, seed):
    axis %= len(shape)
    tensor = random_tensor(tuple(shape), dtype, seed)
    linear_map = random_map(shape[axis], rank, seed, constant) if shape[axis] else Map(*np.zeros((2, 0, rank)))
    wanted, off = formula(tensor, axis, linear_map)
    found = engine(tensor, dtype, axis, linear_map)
    got = decode(np.frombuffer(found, np.uint8), dtype).reshape(shape)
    digits, least = FORMATS[dtype]
    unit = np.ldexp(1.0, np.maximum(np.frexp(wanted)[1] - 1, least) - digits + 1)
    assert (np.abs(got - rounded(wanted, dtype)) <= unit + off).all()


@pytest.mark.parametrize("cols", [1, 2, TILE // 2, TILE - 1, TILE, TILE + 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_around_the_edges_of_tiles(cols, axis):
    """Rows shorter than, as long as and longer than what is worked on at a time."""
    tensor = random_tensor((3, cols), "BF16", cols)
    linear_map = random_map(tensor.shape[axis], 2, cols)
    wanted, _ = formula(tensor, axis, linear_map)
    apart = np.abs(
        order(engine(tensor, "BF16", axis, linear_map), "BF16") - order(stored(rounded(wanted, "BF16"), "BF16"), "BF16")
    )
    assert apart.max() <= 1
    assert np.mean(apart == 0) >= (0.999 if apart.size > 1000 else 1)


def every_bfloat16() -> np.ndarray:
    """All 2^16 but those that are infinite or no number, as float32 with signs."""
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    values = bits.view(np.float32)
    return values[np.isfinite(values)]


@pytest.mark.parametrize("steps", [-2, -1, 0, 1, 2])
@pytest.mark.parametrize("place", ["itself", "middle"])
def test_bfloat16_is_rounded_as_torch_rounds_it(place, steps):
    """Every bfloat16 number and every middle between two, and the float32 numbers next to these."""
    values = every_bfloat16()
    bits = values.view(np.uint32) + np.uint32(0x8000 if place == "middle" else 0)
    near = (bits.astype(np.int64) + steps).clip(0, 0xFFFFFFFF).astype(np.uint32).view(np.float32)
    near = near[np.isfinite(near)]
    assert near.size > 65000
    raw = np.empty(2 * near.size, np.uint8)
    encode(near.astype(np.float64), "BF16", raw)
    wanted = torch.from_numpy(near).to(torch.bfloat16).view(torch.int16).numpy()
    assert (raw.view(np.int16) == wanted).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_stored_number_survives(dtype):
    bits = np.arange(1 << 16, dtype=np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wide = decode(bits.view(np.uint8), dtype)
    exact = torch.from_numpy(bits.view(np.int16).copy()).view(TORCH[dtype]).double().numpy()
    assert np.array_equal(wide, exact, equal_nan=True)
    finite = np.isfinite(wide)
    raw = np.empty(2 * int(finite.sum()), np.uint8)
    encode(wide[finite], dtype, raw)
    assert (raw.view(np.uint16) == bits[finite]).all()


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_encoding_any_number_rounds_to_the_nearest(dtype):
    """Numbers of float64 with nothing special about them, from the smallest to the largest of the format."""
    rng = np.random.default_rng(5)
    digits, least = FORMATS[dtype]
    top = {"BF16": 127, "F16": 15, "F32": 127}[dtype]
    values = rng.uniform(1, 2 - 2.0 ** (1 - digits), 200_000) * 2.0 ** rng.integers(
        least - digits - 1, top + 1, 200_000
    )
    values *= rng.choice([-1.0, 1.0], values.size)
    raw = np.empty(values.size * TORCH[dtype].itemsize, np.uint8)
    encode(values.copy(), dtype, raw)
    apart = np.abs(order(raw.tobytes(), dtype) - order(stored(rounded(values, dtype), dtype), dtype))
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= values.size * (0.001 if dtype == "BF16" else 0)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_limit_is_the_first_number_that_is_stored_as_infinity(dtype):
    # On its way to bfloat16 a number is rounded to float32, which may bring it to where bfloat16 is infinite.
    storage = Plain("x", dtype, (1, 2), -1)
    raw = np.zeros(2 * STORED[dtype].itemsize, np.uint8)
    storage.encode(np.array([[np.nextafter(storage.limit, 0), storage.limit]]), 0, {"x": raw}, 0.0)
    assert np.isfinite(decode(raw, dtype)).tolist() == [True, False]
