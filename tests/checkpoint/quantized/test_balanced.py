"""Balanced rounding: no number is off by more than a step, and next to nothing is left along the directions."""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.helpers.quantized_samples import (
    Projection,
    block_storage,
    mxfp4_storage,
    numbers,
    projection,
    reader,
    store,
    tensor_storage,
)
from tests.helpers.quantized_tensors import STORAGES, WIDTH, source, written
from weight_edit.checkpoint.quantized import balanced
from weight_edit.checkpoint.quantized.balanced import AHEAD, WEIGHT, BalancedTensor, _Undecided
from weight_edit.checkpoint.quantized.coded import Neighbours
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import TILE, Plain


@dataclass(frozen=True)
class Shift:
    """A map with a constant."""

    left: np.ndarray
    right: np.ndarray
    constant: np.ndarray


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("along", [0.0, 8.0])
def test_next_to_nothing_is_left(kind: str, k: int, along: float) -> None:
    storage = STORAGES[kind]()
    parts = source(storage, along=along)
    map_ = projection(WIDTH, k)
    nearest, to_nearest = written(EditedTensor(source=storage, target=storage, map=map_, along_rows=True), parts)
    kept, rounding = written(BalancedTensor(source=storage, target=storage, map=map_, along_rows=True), parts)
    assert rounding.loss.left < 0.02
    assert rounding.loss.left < to_nearest.loss.left / 5
    # The scales are those of rounding to nearest, and no number is beyond the other neighbour of what is wanted.
    assert all(np.array_equal(nearest[name], kept[name]) for name in list(parts)[1:])
    before = numbers(storage, parts)
    wanted = before - map_.left @ (map_.left.T @ before)
    low, high = numbers(storage, nearest), numbers(storage, kept)
    # (But in the few vectors that only a third neighbour settles.)
    assert ((high == low) | ((high - wanted) * (low - wanted) <= 0)).mean() > 0.995
    moved = np.flatnonzero((high != low).reshape(-1))
    assert 0 < moved.size < high.size / 2
    # It costs less than rounding every number to its farther neighbour would, by far.
    assert rounding.loss.error < (0.04 if kind != "mxfp4" else 0.14)


@pytest.mark.parametrize("k", [1, 2])
def test_each_number_takes_the_neighbour_that_lowers_the_sum_of_both_costs(k: int) -> None:
    generator = np.random.default_rng(0)
    rows, cols = 40, 7
    direction = generator.standard_normal((rows, k))
    weight = WEIGHT * rows / np.vdot(direction, direction)
    gap = generator.uniform(0.2, 2, (rows, cols)).astype(np.float32)
    error = (-gap * generator.uniform(0, 1, (rows, cols))).astype(np.float32)
    # Beyond the end of the grid.
    error[3] += 3
    found = _Undecided.of(rows, cols)
    codes = np.zeros((rows, cols), np.uint8)
    found.put(slice(0, rows), Neighbours(codes, codes + 1, error, gap))
    heaviest = np.argsort(-np.einsum("ij,ij->i", direction, direction))
    high, sums = found.decided(direction)
    for col in range(cols):
        offs = np.stack([error[:, col], error[:, col] + gap[:, col]], 1).astype(np.float64)
        chosen = np.abs(offs).argmin(1)
        near = offs[np.arange(rows), chosen]
        total = AHEAD * direction.T @ near
        for row in heaviest:
            total = total + (1 - AHEAD) * direction[row] * near[row]
            sums_with = [total + direction[row] * (off - near[row]) for off in offs[row]]
            costs = [off**2 + weight * np.sum(each**2) for off, each in zip(offs[row], sums_with, strict=True)]
            chosen[row] = int(np.argmin(costs))
            total = sums_with[chosen[row]]
        assert np.array_equal(high[:, col], chosen)
        assert np.isclose(sums[col], np.vdot(total, total), rtol=1e-3, atol=1e-5)
    assert 0 < high.sum() < high.size


@pytest.mark.parametrize("kind", ["block", "mxfp4"])
def test_what_needs_no_rounding_is_left_alone(kind: str) -> None:
    """Directions that have nothing of the weights: all numbers stay on the grid, and none is moved."""
    storage = STORAGES[kind]()
    parts = source(storage)
    edited = BalancedTensor(source=storage, target=storage, map=Projection(np.zeros((WIDTH, 1))), along_rows=True)
    after, rounding = written(edited, parts)
    assert np.array_equal(numbers(storage, after), numbers(storage, parts))
    assert rounding.loss.error == 0


def test_where_vectors_are_rows_next_to_nothing_is_left_either() -> None:
    storage = block_storage((300, WIDTH))
    parts = store(storage, np.random.default_rng(0).standard_normal((300, WIDTH)))
    map_ = projection(WIDTH, 2)
    _, nearest = written(EditedTensor(source=storage, target=storage, map=map_, along_rows=False), parts)
    _, rounding = written(BalancedTensor(source=storage, target=storage, map=map_, along_rows=False), parts)
    assert rounding.loss.left < 0.01
    assert rounding.loss.left < nearest.loss.left / 5


@pytest.mark.parametrize("along_rows", [True, False])
def test_where_directions_are_uneven_the_order_of_the_rows_does_not_matter(along_rows: bool) -> None:
    storage = block_storage((WIDTH, 256) if along_rows else (256, WIDTH))
    generator = np.random.default_rng(0)
    uneven = np.exp(2 * generator.standard_normal(WIDTH)) * generator.standard_normal(WIDTH)
    for order in (np.sort, np.argsort):
        # With the largest entries last, nothing is left to settle what these add.
        direction = uneven[np.argsort(np.abs(uneven))] if order is np.sort else uneven
        map_ = Projection((direction / np.linalg.norm(direction))[:, None])
        values = generator.standard_normal((storage.rows, storage.cols))
        parts = store(storage, values)
        edited = BalancedTensor(source=storage, target=storage, map=map_, along_rows=along_rows)
        _, rounding = written(edited, parts)
        assert rounding.loss.left < 0.005


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("along_rows", [True, False])
def test_a_constant_alone_is_rounded_to_nearest(kind: str, along_rows: bool) -> None:
    """As an addition to embeddings is, which has no directions to balance along."""
    storage = STORAGES[kind]()
    parts = source(storage)
    width = storage.rows if along_rows else storage.cols
    nothing = np.zeros((width, 0))
    map_ = Shift(nothing, nothing, np.random.default_rng(0).standard_normal(width) / 10)
    (nearest, _), (found, rounding) = (
        written(how(source=storage, target=storage, map=map_, along_rows=along_rows), parts)
        for how in (EditedTensor, BalancedTensor)
    )
    assert all(np.array_equal(nearest[name], found[name]) for name in parts)
    assert any(not np.array_equal(raw, found[name]) for name, raw in parts.items())
    assert (rounding.loss.left, rounding.loss.kept > 0.5) == (0.0, True)


@pytest.mark.parametrize("kind", [EditedTensor, BalancedTensor])
@pytest.mark.parametrize("along_rows", [True, False])
def test_a_scale_of_the_whole_is_counted_once_for_each_expert(
    kind: type[EditedTensor], along_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balanced, "_TOGETHER", TILE)
    experts, rows, cols = 2, 640, 512
    storage = tensor_storage((experts, rows, cols))
    parts = store(storage, np.random.default_rng(0).standard_normal((experts, rows, cols)))
    width = rows if along_rows else cols
    constant = np.zeros(width)
    constant[-1] = 100.0
    map_ = Shift(*2 * (projection(width).left,), constant)
    assert len(list(storage.strips())) > 1
    _, rounding = written(kind(source=storage, target=storage, map=map_, along_rows=along_rows), parts)
    assert rounding.loss.rescaled == experts


def test_where_the_target_is_plain_rounding_is_to_nearest() -> None:
    storage = block_storage((40, WIDTH))
    parts = store(storage, np.random.default_rng(0).standard_normal((40, WIDTH)))
    for target, map_ in ((Plain("w", "BF16", (40, WIDTH), 0), projection(40)), (storage, None)):
        both = [
            kind(source=storage, target=target, map=map_, along_rows=True) for kind in (EditedTensor, BalancedTensor)
        ]
        first, second = (np.concatenate(list(edited.blocks("w", reader(parts)))) for edited in both)
        assert np.array_equal(first, second)


def test_numbers_beyond_the_largest_stay_there() -> None:
    storage = mxfp4_storage(1, 4, 1)
    values = np.zeros((1, 4, 32))
    values[0, :, 0] = 6.9
    parts = store(storage, values)
    assert numbers(storage, parts)[0, :, 0].tolist() == [6.0] * 4
    plain = Plain("x", "F64", (1, 4, 32), 1)
    edited = BalancedTensor(source=plain, target=storage, map=Projection(np.full((4, 1), 1e-9)), along_rows=True)
    raw = values.reshape(-1).view(np.uint8)
    after = {name: np.concatenate(list(edited.blocks(name, reader({"x": raw})))) for name in parts}
    assert np.array_equal(numbers(storage, after), numbers(storage, parts))
