"""An edit of a stored tensor: float64 arithmetic, one rounding, along the axis that it names."""

import numpy as np
import pytest
import torch

from weight_edit.checkpoint.tensor.numbers import decode, encode
from weight_edit.edits import low_rank
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import ablation, orthonormal_rows

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}


def random_map(width: int, rank: int = 2, seed: int = 0) -> LowRankMap:
    random = np.random.default_rng(seed)
    left, right = random.standard_normal((2, width, rank)) / width**0.5
    return LowRankMap(left, right, random.standard_normal(width))


def stored_bytes(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_result_is_the_float64_value_rounded_once(name: str, axis: int) -> None:
    stream_map = random_map(48)
    shape = (48, 700) if axis == 0 else (700, 48)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(DTYPES[name])
    edited = TensorEdit(stream_map.linear, axis)(weight)
    assert edited.dtype == weight.dtype
    exact = decode(stored_bytes(weight), name).astype(np.float64).reshape(shape)
    exact = exact - (
        stream_map.left @ (stream_map.right.T @ exact) if axis == 0 else (exact @ stream_map.right) @ stream_map.left.T
    )
    wanted = np.empty_like(stored_bytes(weight))
    encode(exact.reshape(-1), name, wanted)
    if name == "F64":
        np.testing.assert_allclose(edited.numpy(), exact, atol=1e-14)
    else:
        assert (stored_bytes(edited) == wanted).all()


@pytest.mark.parametrize(("value", "wanted"), [(1 + 2**-11 + 2**-36, 1 + 2**-10), (1 + 2**-11, 1.0), (65536.0, np.inf)])
def test_float16_is_rounded_once_and_not_by_way_of_float32(value: float, wanted: float) -> None:
    shift = LowRankMap(np.zeros((1, 1)), np.zeros((1, 1)), np.array([value]))
    assert shift.on_bias(torch.zeros(1, dtype=torch.float16)).item() == wanted


@pytest.mark.parametrize("shape", [(6,), (6, 5), (3, 6, 5), (6, 0)])
def test_the_constant_belongs_to_it_whatever_the_shape(shape: tuple[int, ...]) -> None:
    stream_map = random_map(6)
    axis = shape.index(6)
    tensor = torch.randn(shape, dtype=torch.float64)
    edited = TensorEdit(stream_map, axis)(tensor)
    assert edited.shape == tensor.shape
    torch.testing.assert_close(edited.movedim(axis, -1), stream_map.apply(tensor.movedim(axis, -1)))
    if tensor.numel():
        shift = edited - TensorEdit(stream_map.linear, axis)(tensor)
        assert stream_map.constant is not None
        torch.testing.assert_close(
            shift.movedim(axis, -1), torch.from_numpy(stream_map.constant).expand_as(shift.movedim(axis, -1))
        )


@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_make_no_difference(axis: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stream_map = random_map(16)
    weight = torch.randn(16, 16, dtype=torch.float64)
    whole = TensorEdit(stream_map, axis)(weight)
    monkeypatch.setattr(low_rank, "_BLOCK", 3 * 16)
    torch.testing.assert_close(TensorEdit(stream_map, axis)(weight), whole, rtol=0, atol=1e-14)


def test_a_tensor_of_another_width_is_refused() -> None:
    for tensor in (torch.zeros(5, 3), torch.zeros(())):
        with pytest.raises(ValueError, match="is not 4 wide"):
            TensorEdit(random_map(4), 0)(tensor)


def test_arrays_and_tensors_give_the_same_map() -> None:
    rows = orthonormal_rows(np.random.default_rng(0).standard_normal((2, 8))).astype(np.float32)
    given = ablation(torch.from_numpy(rows), 0.3)
    wanted = ablation(rows, 0.3)
    assert (given.left == wanted.left).all()
    assert (given.right == wanted.right).all()
    assert given.left.dtype == np.float64
    halves = torch.from_numpy(rows).bfloat16()
    assert (LowRankMap(halves.T, halves.T).left == halves.double().T.numpy()).all()


def test_a_map_keeps_its_own_numbers() -> None:
    given = np.eye(4)[:, :1]
    stream_map = LowRankMap(given, given)
    given[:] = 7
    assert stream_map.left.tolist() == [[1.0], [0.0], [0.0], [0.0]]


def test_factors_are_made_once_and_can_be_trained_through() -> None:
    stream_map = random_map(4)
    with torch.inference_mode():
        stream_map.apply(torch.zeros(2, 4))
    first = stream_map.factors(torch.device("cpu"), torch.float32)
    assert stream_map.factors(torch.device("cpu"), torch.float32)[0] is first[0]
    x = torch.zeros(2, 4, requires_grad=True)
    stream_map.apply(x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.double(), stream_map.transposed().apply(torch.ones(2, 4, dtype=torch.float64)))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("axis", [0, 1])
def test_gains_multiply_each_vector_before_the_map(name: str, axis: int) -> None:
    stream_map = random_map(24)
    gains = torch.rand(24, generator=torch.Generator().manual_seed(3)).bfloat16()
    weight = torch.randn(24, 24, generator=torch.Generator().manual_seed(1)).to(DTYPES[name])
    edited = TensorEdit(stream_map, axis, gains=gains)(weight)
    spread = gains.double()[:, None] if axis == 0 else gains.double()
    wanted = stream_map.on_stored(spread * weight.double(), axis).to(DTYPES[name])
    torch.testing.assert_close(edited, wanted, rtol=0, atol=1e-14 if name == "F64" else 0)


def test_gains_of_zero_with_a_constant_set_a_tensor() -> None:
    nothing = LowRankMap.identity(5)
    ones = LowRankMap(nothing.left, nothing.right, np.ones(5))
    norm = torch.randn(5).bfloat16()
    assert torch.equal(TensorEdit(ones, 0, gains=np.zeros(5))(norm), torch.ones(5).bfloat16())


@pytest.mark.parametrize("shape", [(12,), (12, 5), (3, 12, 5)])
def test_vectors_keep_their_lengths(shape: tuple[int, ...]) -> None:
    """Under any linear map, not a projection alone; the direction is that of the map without it."""
    stream_map, axis = random_map(12).linear, shape.index(12)
    tensor = torch.randn(shape, dtype=torch.float64)
    edited = TensorEdit(stream_map, axis, keep_norms=True)(tensor)
    torch.testing.assert_close(edited.norm(dim=axis), tensor.norm(dim=axis))
    mapped = stream_map.on_stored(tensor, axis)
    torch.testing.assert_close(
        edited, mapped / mapped.norm(dim=axis, keepdim=True) * tensor.norm(dim=axis, keepdim=True)
    )


def test_a_vector_of_which_nothing_is_left_is_zero() -> None:
    rows = orthonormal_rows(np.random.default_rng(5).standard_normal((2, 64)))
    gone = torch.from_numpy(rows.T @ [[0.3, 1e-9, 0.0], [-7.0, 4e-9, 0.0]])
    noise = ablation(rows).on_stored(gone, 0)
    assert noise[:, :2].any(), "sums leave something, which must not be brought to full length"
    assert not TensorEdit(ablation(rows), 0, keep_norms=True)(gone).any()
    little = gone + 1e-6 * torch.randn(64, 1, dtype=torch.float64)
    kept = TensorEdit(ablation(rows), 0, keep_norms=True)(little)
    torch.testing.assert_close(kept.norm(dim=0), little.norm(dim=0))


def test_what_does_not_go_together_is_refused() -> None:
    stream_map = random_map(4)
    with pytest.raises(ValueError, match="keep_norms goes with neither"):
        TensorEdit(stream_map, 0, keep_norms=True)
    with pytest.raises(ValueError, match="keep_norms goes with neither"):
        TensorEdit(stream_map.linear, 0, gains=np.ones(4), keep_norms=True)
    for gains in (np.ones(3), np.ones((4, 1)), np.array([1.0, np.inf, 1.0, 1.0])):
        with pytest.raises(ValueError, match=r"must be \(4,\) finite numbers"):
            TensorEdit(stream_map, 0, gains=gains)
