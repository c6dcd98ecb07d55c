"""NaN and infinities in tensors that no edit touches: found while they are copied, and named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.checkpoint_samples import Factors, edit_of, make_checkpoint
from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.rewrite.planning import plan_rewrite
from weight_edit.checkpoint.rewrite.rewrite import write_checkpoint
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.nonfinite import Census, count_non_finite
from weight_edit.errors import UsageError

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def tensors(dtype: torch.dtype, value: float) -> dict[str, torch.Tensor]:
    """Two that are copied, the second with one bad number, beside integers of which any is good; one that is edited."""
    values = torch.linspace(-4, 4, 210)
    bad = values.clone()
    bad[123] = value
    return {
        "a_good": values.to(dtype),
        "b_bad": bad.to(dtype),
        "c_codes": torch.full((33,), -1, dtype=torch.int8),
        "d_whole": torch.full((5,), -1, dtype=torch.int64),
        "edited": torch.randn(8, 4),
    }


def damaged(root: Path, dtype: torch.dtype, value: float) -> Checkpoint:
    return Checkpoint.open(make_checkpoint(root / "base", tensors(dtype, value), extras=False))


@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_copied_tensor_that_is_not_finite_is_named(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    base = damaged(tmp_path, dtype, value)
    if base.tensors["b_bad"].dtype == "F8_E4M3" and value == value:
        pytest.skip("this format has no infinities: torch stores NaN or its largest number")
    edit = edit_of(base, "edited", Factors(np.zeros((8, 1)), np.zeros((8, 1))), 0)
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match=r"tensor 'b_bad' has NaN or infinite values.*`allow_nonfinite=True`"):
        rewrite(base, tmp_path / "out", [edit])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pieces_of_any_length_give_the_same_count(tmp_path: Path, dtype: torch.dtype) -> None:
    base = damaged(tmp_path, dtype, float("nan"))
    header = base.headers[base.shards[0]]
    raw = np.frombuffer((base.path / base.shards[0]).read_bytes(), np.uint8)
    for begin in (0, header.data_start):
        for length in (1, 3, 7, 64, len(raw)):
            census = Census(header.tensors, begin)
            for at in range(begin, len(raw), length):
                census.see(raw[at : at + length])
            assert census.found == {"b_bad": 1}


@pytest.mark.parametrize("name", ["BF16", "F16"])
def test_the_two_maxima_find_every_pattern(name: str) -> None:
    """Each of the 65,536 numbers by itself and among others, against torch."""
    dtype = torch.bfloat16 if name == "BF16" else torch.float16
    patterns = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    good = torch.isfinite(patterns.view(dtype).float()).numpy()
    raw = patterns.numpy()
    for number in range(0, 65536, 7):
        among = np.array([0x3F80, raw[number], 0xBF80], "<u2").view(np.uint8)
        assert count_non_finite(among, name) == (not good[number])
    assert count_non_finite(raw.view(np.uint8), name) == int((~good).sum())


def test_with_leave_it_is_copied_and_counted(tmp_path: Path) -> None:
    base = damaged(tmp_path, torch.bfloat16, float("inf"))
    (tmp_path / "out").mkdir()

    result = write_checkpoint(plan_rewrite(base, []), tmp_path / "out", allow_nonfinite=True)
    assert result.nonfinite == {"b_bad": 1}
    name = base.shards[0]
    assert (tmp_path / "out" / name).read_bytes() == (base.path / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_single_infinite_number_is_a_limit_that_was_not_set(tmp_path: Path, dtype: torch.dtype) -> None:
    """As Gemma 4 has them beside its layers for sounds; a single NaN is damage."""
    limits = {
        "input_max": torch.tensor(float("inf"), dtype=dtype),
        "input_min": torch.tensor([-float("inf")]).to(dtype),
    }
    base = Checkpoint.open(make_checkpoint(tmp_path / "base", {**limits, "w": torch.ones(3)}, extras=False))
    header = base.headers[base.shards[0]]
    raw = np.frombuffer((base.path / base.shards[0]).read_bytes(), np.uint8)
    for length in (1, 5, len(raw)):
        census = Census(header.tensors, header.data_start)
        for at in range(header.data_start, len(raw), length):
            census.see(raw[at : at + length])
        assert census.found == {}
    assert count_non_finite(np.frombuffer(np.float32(np.nan).tobytes(), np.uint8), "F32") == 1
    nan = {"input_max": torch.tensor(float("nan")), "edited": torch.randn(8, 4)}
    base = Checkpoint.open(make_checkpoint(tmp_path / "nan", nan, extras=False))
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="tensor 'input_max' has NaN"):
        rewrite(base, tmp_path / "out", [edit_of(base, "edited", Factors(np.zeros((8, 1)), np.zeros((8, 1))), 0)])
