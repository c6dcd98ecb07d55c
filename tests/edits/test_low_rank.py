"""The three faces of the low-rank affine map agree, for any shape, dtype and orientation."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weight_edit.adapters.truncation import factors_of_rows
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import ablation
from weight_edit.edits.projection import orthonormal_rows as orthonormal_array
from weight_edit.edits.through_norm import before_norm


def orthonormal_rows(rows: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(orthonormal_array(rows))


def random_map(d: int, k: int, seed: int, constant: bool) -> LowRankMap:
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, d, k, generator=generator, dtype=torch.float64) / d**0.5
    shift = torch.randn(d, generator=generator, dtype=torch.float64) if constant else None
    return LowRankMap(left, right, shift)


sizes = st.integers(2, 9)


@given(d=sizes, k=st.integers(1, 3), other=sizes, axis=st.sampled_from([0, 1]), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_hook_weights_and_adapter_are_one_map(d: int, k: int, other: int, axis: int, seed: int) -> None:
    stream_map = random_map(d, k, seed, constant=True)
    generator = torch.Generator().manual_seed(seed + 1)
    out_in = torch.randn(d, other, generator=generator, dtype=torch.float64)
    bias = torch.randn(d, generator=generator, dtype=torch.float64)
    x = torch.randn(5, other, generator=generator, dtype=torch.float64)
    stored = out_in if axis == 0 else out_in.T
    hooked = stream_map.apply(x @ out_in.T + bias)

    weight = stream_map.linear.on_stored(stored, axis)
    baked = x @ (weight if axis == 0 else weight.T).T + stream_map.on_bias(bias)
    torch.testing.assert_close(baked, hooked)

    stream, others, loss = factors_of_rows(TensorEdit(stream_map.linear, axis), stored.movedim(axis, -1), None)
    assert loss is None
    # Adapters are stored in float32.
    adapted = x @ (out_in + stream.double() @ others.double()).T + stream_map.on_bias(bias)
    torch.testing.assert_close(adapted, hooked, rtol=1e-4, atol=1e-4 * float(out_in.norm() * x.norm()))


def test_a_stack_of_experts_is_edited_along_its_axis() -> None:
    stream_map = random_map(6, 2, 0, constant=False)
    experts = torch.randn(3, 4, 6, dtype=torch.float64)
    edited = stream_map.linear.on_stored(experts, axis=2)
    for expert, given_expert in zip(edited, experts, strict=True):
        torch.testing.assert_close(expert, stream_map.linear.on_stored(given_expert, axis=1))


def test_the_transposed_map_is_what_an_input_goes_through() -> None:
    stream_map = random_map(6, 2, 3, constant=False)
    rows, x = torch.randn(2, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(
        stream_map.linear.on_stored(rows, axis=1) @ x.T, rows @ stream_map.transposed().apply(x).T
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_one_rounding_to_the_storage_dtype(dtype: torch.dtype) -> None:
    v = orthonormal_rows(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)))
    weight = torch.randn(16, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = weight.double() - v.T @ (v @ weight.double())
    edited = ablation(v.float() if dtype != torch.float64 else v).linear.on_stored(weight, axis=0)
    assert edited.dtype == dtype
    step = torch.finfo(dtype).eps * exact.abs().clamp_min(torch.finfo(torch.float32).eps * 8)
    near = (edited.double() - exact).abs() <= 0.51 * step + 1e-6
    assert near.all()


@given(k=st.integers(1, 4), strength=st.sampled_from([0.0, 0.3, 1.0, 2.0]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_ablation_scales_the_component_and_nothing_else(k: int, strength: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    v = orthonormal_rows(torch.randn(k, 12, generator=generator))
    x = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    y = ablation(v, strength).apply(x)
    torch.testing.assert_close(y @ v.T, (1 - strength) * (x @ v.T))
    rest = torch.eye(12, dtype=torch.float64) - v.T @ v
    torch.testing.assert_close(y @ rest, x @ rest)


def test_rows_that_are_not_orthonormal_are_refused() -> None:
    with pytest.raises(ValueError, match="not orthonormal"):
        ablation(torch.tensor([[2.0, 0.0]]))
    with pytest.raises(ValueError, match="not orthonormal"):
        ablation(torch.tensor([[1.0, 0.0], [0.6, 0.8]]))


def test_removing_one_after_the_other_leaks_but_together_does_not() -> None:
    rows = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]], dtype=torch.float64)
    x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    one_by_one = x
    for row in rows:
        one_by_one = ablation(row[None]).apply(one_by_one)
    together = ablation(orthonormal_rows(rows)).apply(x)
    assert (rows @ one_by_one).abs().max() > 0.1
    assert (rows @ together).abs().max() < 1e-12


@given(rank=st.integers(1, 4), extra=st.integers(0, 3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_an_orthonormal_basis_spans_the_same(rank: int, extra: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(rank, 10, generator=generator, dtype=torch.float64)
    mixed = torch.cat([basis, torch.randn(extra, rank, generator=generator, dtype=torch.float64) @ basis])
    rows = orthonormal_rows(mixed)
    assert len(rows) == rank
    torch.testing.assert_close(rows @ rows.T, torch.eye(rank, dtype=torch.float64))
    torch.testing.assert_close(mixed @ rows.T @ rows, mixed)


def test_a_single_row_keeps_its_sign() -> None:
    row = torch.tensor([[-3.0, 4.0]])
    torch.testing.assert_close(orthonormal_rows(row), torch.tensor([[-0.6, 0.8]], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("k", [1, 3])
def test_nothing_is_left_after_a_norm(kind: str, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    d = 16
    v = orthonormal_rows(torch.randn(k, d, generator=generator))
    gain, bias = torch.randn(2, d, generator=generator, dtype=torch.float64)
    weight = torch.randn(d, 8, generator=generator, dtype=torch.float64)
    before = ablation(before_norm(v, gain, centred=kind == "layer"))
    z = torch.randn(5, 8, generator=generator, dtype=torch.float64) @ before.linear.on_stored(weight, 0).T
    if kind == "layer":
        y = torch.nn.functional.layer_norm(z, (d,), gain, ablation(v).on_bias(bias))
    else:
        y = gain * z / z.square().mean(-1, keepdim=True).sqrt()
    assert (y @ v.T).norm() < 1e-10 * y.norm()
    naive = torch.randn(5, 8, generator=generator, dtype=torch.float64) @ ablation(v).linear.on_stored(weight, 0).T
    assert ((gain * naive) @ v.T).norm() > 1e-2 * naive.norm()


def test_a_direction_that_the_gain_sends_to_zero_needs_no_projection() -> None:
    v = torch.tensor([[1.0, 0.0, 0.0]])
    assert before_norm(v, torch.tensor([0.0, 1.0, 1.0]), centred=False).shape == (0, 3)


@given(d=sizes, k=st.integers(1, 3), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_map_is_idempotent_if_a_second_time_changes_nothing(d: int, k: int, seed: int) -> None:
    rows = orthonormal_array(torch.randn(min(k, d), d, generator=torch.Generator().manual_seed(seed)).numpy())
    generator = np.random.default_rng(seed)
    for stream_map in (ablation(rows), ablation(rows, 0.5), ablation(rows, 2.0), random_map(d, k, seed, constant=True)):
        linear = np.eye(d) - stream_map.left @ stream_map.right.T
        far = np.abs(linear @ linear - linear).max()
        assert stream_map.idempotent == bool(far < 1e-5 * max(1.0, np.abs(stream_map.left @ stream_map.right.T).max()))
    assert ablation(rows).idempotent
    assert LowRankMap(*generator.standard_normal((2, d, 0))).idempotent


def test_a_wide_map_is_judged_without_a_square_matrix() -> None:
    d = 4096
    rows = orthonormal_array(np.random.default_rng(0).standard_normal((2, d)))
    stream_map = ablation(rows)
    tracemalloc.start()
    assert stream_map.idempotent
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * d * d / 16
