"""Rates that are given or measured."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers.families import family_config
from weight_edit.costs.model_size import ModelSize, model_size
from weight_edit.costs.rates import _HEAD, _Block, rates_of
from weight_edit.errors import UsageError


@pytest.fixture(scope="module")
def size() -> ModelSize:
    return model_size(family_config("llama"), None)


@pytest.mark.parametrize(("rows", "tokens", "kept"), [(3, 5, 0), (4, 1, 6)])
def test_the_timed_block_has_the_flops_that_are_counted(size: ModelSize, rows: int, tokens: int, kept: int) -> None:
    block = _Block.like(size, "cpu")
    stream, past = torch.ones(rows, tokens, block.width), torch.ones(rows, block.heads, kept, _HEAD)
    # Of fused attention on a processor torch counts nothing.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = block(stream, past)
    assert out.shape == stream.shape
    assert counter.get_total_flops() == block.flops(rows, tokens, kept + tokens)


def test_given_rates_are_taken_and_nothing_is_measured(size: ModelSize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weight_edit.costs.rates._seconds", lambda *_: pytest.fail("a block was timed"))
    monkeypatch.setattr("weight_edit.costs.rates._read_rate", lambda *_: pytest.fail("a file was read"))
    found = rates_of(size, device="cpu", calibrate=False, flops=1e12, disk=2e9, file=None)
    assert found is not None
    assert (found.flops, found.decode_flops, found.disk, found.device) == (1e12, 1e12, 2e9, None)
    assert rates_of(size, device="cpu", calibrate=True, flops=1e12, disk=2e9, file=None) == found
    assert rates_of(size, device="cpu", calibrate=False, flops=1e12, disk=None, file=None) is None


def test_what_is_not_given_is_measured(size: ModelSize, tmp_path: Path) -> None:
    file = tmp_path / "shard"
    file.write_bytes(b"x" * 100_000)
    found = rates_of(size, device="cpu", calibrate=True, flops=None, disk=None, file=file)
    assert found is not None
    assert min(found.flops, found.decode_flops, found.disk, found.disk_write) > 0
    assert found.device == "cpu"
    assert file.read_bytes() == b"x" * 100_000


@pytest.mark.parametrize(("dtype", "measured"), [("float32", False), ("bfloat16", True)])
def test_beside_a_narrow_dtype_a_processors_float32_is_timed(
    size: ModelSize, dtype: str, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("weight_edit.costs.rates._seconds", lambda *_: 1.0)
    found = rates_of(replace(size, dtype=dtype), device="cpu", calibrate=True, flops=None, disk=1e9, file=None)
    assert found is not None
    assert (found.float32_flops is not None) is measured


@pytest.mark.parametrize(("name", "given"), [("flops", 0.0), ("flops", float("inf")), ("disk_rate", -1.0)])
def test_a_rate_is_above_zero(size: ModelSize, name: str, given: float) -> None:
    rates = {"flops": 1.0, "disk_rate": 1.0, name: given}
    with pytest.raises(UsageError, match=f"`{name}=.*must be above 0"):
        rates_of(size, device="cpu", calibrate=False, flops=rates["flops"], disk=rates["disk_rate"], file=None)
