"""Scales are stored as the smallest number that is not below the wanted one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weight_edit.checkpoint.quantized.scales import SCALES, check_scales, read_scales, store_scales
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES
from weight_edit.errors import UsageError

SIZES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E8M0": 1, "U8": 1}


@settings(deadline=None)
@given(wanted=st.floats(2.0**-14, 30000.0))
@pytest.mark.parametrize("dtype", SCALES)
def test_the_smallest_scale_that_is_not_below(dtype: str, wanted: float) -> None:
    raw = store_scales(np.array(wanted), dtype)
    assert raw.dtype == np.uint8
    assert raw.size == SIZES[dtype]
    below = (raw.view(f"<u{raw.size}") - 1).view(np.uint8)
    assert read_scales(below, dtype)[0] < wanted <= read_scales(raw, dtype)[0]


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16", "F8_E8M0"])
def test_scales_are_read_as_torch_reads_them(dtype: str) -> None:
    raw = store_scales(np.geomspace(1e-3, 1e3, 50), dtype)
    theirs = torch.from_numpy(raw.copy()).view(TORCH_DTYPES[dtype]).to(torch.float64)
    assert np.array_equal(read_scales(raw, dtype), theirs.numpy())


@settings(deadline=None)
@given(wanted=st.floats(1e-30, 1e30))
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_powers_of_two_in_a_dtype_that_has_others(dtype: str, wanted: float) -> None:
    scale = read_scales(store_scales(np.array(wanted), dtype, power_of_two=True), dtype)[0]
    assert np.frexp(scale)[0] == 0.5
    assert scale / 2 < wanted <= scale


@pytest.mark.parametrize("dtype", SCALES)
def test_a_scale_that_can_be_stored_stays(dtype: str) -> None:
    raw = store_scales(np.array([0.25, 1.0, 4.0]), dtype)
    assert read_scales(raw, dtype).tolist() == [0.25, 1.0, 4.0]


@pytest.mark.parametrize(("dtype", "least"), [("F32", 2.0**-126), ("BF16", 2.0**-126), ("F8_E8M0", 2.0**-127)])
def test_no_scale_is_subnormal_and_zeros_get_one(dtype: str, least: float) -> None:
    assert read_scales(store_scales(np.array([1e-300, 0.0]), dtype), dtype).tolist() == [least, 1.0]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_bad_scales_are_refused_by_name(bad: float) -> None:
    with pytest.raises(UsageError, match=r"'x\.scale' has 1 scales that are negative or not finite"):
        check_scales(np.array([1.0, bad, 0.0]), "x.scale")
    check_scales(np.array([1.0, 0.0]), "x.scale")


def test_the_last_e8m0_code_is_no_number() -> None:
    assert np.isnan(read_scales(np.array([255], np.uint8), "F8_E8M0")).all()
