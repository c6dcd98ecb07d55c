"""Codes of 8 and 4 bits against torch's own type and against a search over all numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from weight_edit.checkpoint.quantized.minifloat import E2M1, E4M3, MiniFloat

CODES = np.arange(256, dtype=np.uint8)
POSITIVE = {E4M3: E4M3.numbers[:127], E2M1: E2M1.numbers[:8]}


def nearest(values: np.ndarray, format_: MiniFloat) -> np.ndarray:
    """The code of the nearest number, of two the even one; exact, since halves of sums of grid numbers are."""
    grid = POSITIVE[format_]
    middles = (grid[1:] + grid[:-1]) / 2
    magnitude = np.abs(values)
    low = np.searchsorted(middles, magnitude, side="left")
    tied = np.append(middles, np.inf)[low] == magnitude
    code = np.where(tied & (low % 2 == 1), low + 1, low)
    return (code + np.where(np.signbit(values), 1 << (format_.bits - 1), 0)).astype(np.uint8)


def boundaries(format_: MiniFloat) -> np.ndarray:
    """All numbers, all middles, and the next float64 on both sides of each, with both signs."""
    grid = POSITIVE[format_]
    points = np.concatenate([grid, (grid[1:] + grid[:-1]) / 2])
    points = np.concatenate([points, np.nextafter(points, 0), np.nextafter(points, np.inf)])
    return np.concatenate([points, -points])


def test_every_e4m3_code_means_what_torch_says() -> None:
    theirs = torch.from_numpy(CODES).view(torch.float8_e4m3fn).to(torch.float64).numpy()
    assert np.array_equal(E4M3.decode(CODES), theirs, equal_nan=True)
    assert np.array_equal(np.signbit(E4M3.decode(CODES[::128])), [False, True])


def test_every_e2m1_code_means_what_the_standard_says() -> None:
    magnitudes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    assert E2M1.decode(CODES[:16]).tolist() == magnitudes + [-number for number in magnitudes]


@pytest.mark.parametrize("format_", [E4M3, E2M1])
def test_numbers_of_the_format_keep_their_codes(format_: MiniFloat) -> None:
    codes = CODES[: 1 << format_.bits]
    codes = codes[np.isfinite(format_.decode(codes))]
    assert np.array_equal(format_.encode(format_.decode(codes)), codes)


@pytest.mark.parametrize("format_", [E4M3, E2M1])
def test_ties_go_to_even_and_their_neighbours_do_not(format_: MiniFloat) -> None:
    values = boundaries(format_)
    assert np.array_equal(format_.encode(values.copy()), nearest(values, format_))


def test_random_float32_values_round_as_in_torch() -> None:
    generator = np.random.default_rng(0)
    values = (generator.standard_normal(200_000) * 2.0 ** generator.integers(-14, 8, 200_000)).astype(np.float32)
    values = np.concatenate([values, boundaries(E4M3).astype(np.float32)]).clip(-448, 448)
    theirs = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(E4M3.encode(values.astype(np.float64)), theirs)


def test_a_value_just_above_a_tie_is_rounded_once() -> None:
    # In float32 it is the tie, which goes down to even.
    value = 1.0625 + 2.0**-40
    assert np.float32(value) == 1.0625
    assert E4M3.decode(E4M3.encode(np.array([value]))).tolist() == [1.125]


@pytest.mark.parametrize("format_", [E4M3, E2M1])
@settings(deadline=None)
@given(values=hnp.arrays(np.float64, st.integers(0, 40), elements=st.floats(-1e300, 1e300)))
def test_any_finite_value_becomes_the_nearest_number(format_: MiniFloat, values: np.ndarray) -> None:
    assert np.array_equal(format_.encode(values.copy()), nearest(values, format_))


def test_shapes_and_long_arrays() -> None:
    values = np.random.default_rng(1).standard_normal((3, 20_011)) * 50
    codes = E4M3.encode(values.copy())
    assert codes.shape == values.shape
    assert np.array_equal(codes, nearest(values, E4M3))
    assert E4M3.encode(np.empty((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("format_", [E4M3, E2M1])
def test_neighbours_of_every_number(format_: MiniFloat) -> None:
    codes = CODES[: 1 << format_.bits]
    codes = codes[np.isfinite(format_.decode(codes))]
    numbers, line = format_.decode(codes), np.unique(format_.decode(codes))
    place = np.searchsorted(line, numbers)
    assert np.array_equal(format_.decode(format_.above[codes]), line[np.minimum(place + 1, line.size - 1)])
    assert np.array_equal(format_.decode(format_.below[codes]), line[np.maximum(place - 1, 0)])
