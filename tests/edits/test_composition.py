"""Maps after one another are one map, of no higher rank than they need."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from weight_edit.adapters.truncation import factors_of_rows
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import ablation, orthonormal_rows


def random_map(d: int, k: int, seed: int, constant: bool = True) -> LowRankMap:
    random = np.random.default_rng([d, k, seed])
    left, right = random.standard_normal((2, d, k)) / d**0.5
    return LowRankMap(left, right, random.standard_normal(d) if constant else None)


def directions(d: int, k: int, seed: int = 0) -> np.ndarray:
    return orthonormal_rows(np.random.default_rng(seed).standard_normal((k, d)))


def vectors(d: int) -> torch.Tensor:
    return torch.randn(7, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)


def reach(x: torch.Tensor, *maps: LowRankMap) -> float:
    """How large the numbers may be that the sums on the way add up."""
    size = x.abs().numpy()
    for stream_map in maps:
        size = (
            size
            + (size @ abs(stream_map.right)) @ abs(stream_map.left).T
            + (0 if stream_map.constant is None else abs(stream_map.constant))
        )
    return float(size.max(initial=1.0))


def assert_same(stream_map: LowRankMap, wanted: torch.Tensor, x: torch.Tensor, *maps: LowRankMap) -> None:
    """That a map gives what is wanted, but for float64's rounding on the way through `maps`."""
    torch.testing.assert_close(stream_map.apply(x), wanted, rtol=0, atol=3e-15 * reach(x, *maps))


ranks = st.integers(0, 6)


@given(d=st.integers(1, 9), k=ranks, other=ranks, constants=st.tuples(st.booleans(), st.booleans()), seed=st.integers())
@settings(max_examples=150, deadline=None)
def test_one_after_the_other(d: int, k: int, other: int, constants: tuple[bool, bool], seed: int) -> None:
    seed = abs(seed)
    first, second = random_map(d, k, seed, constants[0]), random_map(d, other, seed + 1, constants[1])
    both = first.then(second)
    x = vectors(d)
    assert_same(both, second.apply(first.apply(x)), x, first, second)
    assert both.rank <= min(d, k + other)
    assert (both.constant is None) == (not any(constants))


@given(d=st.integers(1, 12), k=st.tuples(ranks, ranks, ranks), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_how_they_are_bracketed_makes_no_difference(d: int, k: tuple[int, int, int], seed: int) -> None:
    a, b, c = (random_map(d, rank, seed + n) for n, rank in enumerate(k))
    x = vectors(d)
    assert_same(a.then(b).then(c), a.then(b.then(c)).apply(x), x, a, b, c)


@pytest.mark.parametrize(("d", "k"), [(5, 1), (64, 3), (4096, 5)])
def test_the_same_projection_again_and_again_keeps_its_rank(d: int, k: int) -> None:
    once = ablation(directions(d, k))
    again = once.then(once).then(once)
    assert again.rank == k
    x = vectors(d)
    assert_same(again, once.apply(x), x, once, once, once)
    # Rows of float32 are orthonormal to eight digits: what is left of them then is taken out too, by the same columns.
    rough = ablation(directions(d, k).astype(np.float32))
    assert rough.then(rough).rank == k
    assert_same(rough.then(rough), rough.apply(rough.apply(x)), x, rough, rough)


@pytest.mark.parametrize(("d", "k"), [(5, 1), (2048, 4)])
def test_a_flip_and_the_same_flip_are_nothing(d: int, k: int) -> None:
    flip = ablation(directions(d, k), 2)
    assert flip.then(flip).rank == 0
    assert_same(flip.then(flip), vectors(d), vectors(d), flip, flip)


def test_a_small_second_map_is_not_lost_beside_a_large_first_one() -> None:
    large, small = ablation(directions(32, 1)), ablation(directions(32, 1, seed=1), 1e-9)
    both = large.then(small)
    assert both.rank == 2
    x = vectors(32)
    torch.testing.assert_close(
        both.apply(x) - large.apply(x), small.apply(large.apply(x)) - large.apply(x), rtol=0, atol=2e-15
    )
    assert (both.apply(x) - large.apply(x)).abs().max() > 1e-10


def test_maps_of_different_widths_do_not_compose() -> None:
    with pytest.raises(ValueError, match="4 wide cannot be followed by one 5 wide"):
        random_map(4, 1, 0).then(random_map(5, 1, 0))


@given(strength=st.floats(-3, 3), constant=st.booleans())
@settings(max_examples=30, deadline=None)
def test_part_of_the_way(strength: float, constant: bool) -> None:
    stream_map, x = random_map(8, 2, 1, constant), vectors(8)
    assert_same(
        stream_map.times(strength), x + strength * (stream_map.apply(x) - x), x, stream_map, stream_map.times(strength)
    )


@pytest.mark.parametrize("constant", [None, np.arange(6.0)])
def test_a_map_without_directions_has_every_face(constant: np.ndarray | None) -> None:
    nothing = LowRankMap.identity(6)
    assert (nothing.rank, nothing.width, nothing.constant) == (0, 6, None)
    stream_map = LowRankMap(nothing.left, nothing.right, constant)
    shift = torch.zeros(6, dtype=torch.float64) if constant is None else torch.from_numpy(constant)
    x = vectors(6)
    assert torch.equal(stream_map.apply(x), x + shift)
    assert torch.equal(stream_map.linear.on_stored(x, 1), x)
    assert torch.equal(stream_map.on_bias(x[0]), x[0] + shift)
    assert torch.equal(TensorEdit(stream_map, 1)(x), x + shift)
    assert torch.equal(stream_map.transposed().apply(x), x)
    stream, others, _ = factors_of_rows(TensorEdit(nothing, 1), x, None)
    assert (stream.shape, others.shape) == ((6, 0), (0, 7))
    other = random_map(6, 2, 0)
    assert_same(stream_map.then(other), other.apply(x + shift), x, stream_map, other)
    assert_same(other.then(stream_map), other.apply(x) + shift, x, other, stream_map)
    assert stream_map.then(stream_map).rank == 0
