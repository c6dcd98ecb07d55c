"""Balanced rounding: no number is off by more than a step, and next to nothing is left along the directions."""

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
)
from tests.helpers.quantized_tensors import STORAGES, WIDTH, source, written
from weight_edit.checkpoint.quantized.balanced import BalancedTensor, _choose
from weight_edit.checkpoint.tensor.edited import EditedTensor
from weight_edit.checkpoint.tensor.storage import Plain


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("along", [0.0, 8.0])
def test_next_to_nothing_is_left(kind: str, k: int, along: float) -> None:
    storage = STORAGES[kind]()
    parts = source(storage, along=along)
    map_ = projection(WIDTH, k)
    nearest, to_nearest = written(EditedTensor(source=storage, target=storage, map=map_, along_rows=True), parts)
    balanced, rounding = written(BalancedTensor(source=storage, target=storage, map=map_, along_rows=True), parts)
    assert rounding.loss.left < 0.02
    assert rounding.loss.left < to_nearest.loss.left / 5
    # The scales are those of rounding to nearest, and no number is beyond the other neighbour of what is wanted.
    assert all(np.array_equal(nearest[name], balanced[name]) for name in list(parts)[1:])
    before = numbers(storage, parts)
    wanted = before - map_.left @ (map_.left.T @ before)
    low, high = numbers(storage, nearest), numbers(storage, balanced)
    assert ((high == low) | ((high - wanted) * (low - wanted) <= 0)).all()
    moved = np.flatnonzero((high != low).reshape(-1))
    assert 0 < moved.size < high.size / 2
    # It costs less than rounding every number to its farther neighbour would, by far.
    assert rounding.loss.error < (0.04 if kind != "mxfp4" else 0.12)


def test_each_number_takes_the_neighbour_that_lowers_the_sum_of_both_costs() -> None:
    generator = np.random.default_rng(0)
    rows, cols, weight = 40, 7, 3.0
    direction = generator.standard_normal((rows, 2))
    error = generator.uniform(-0.5, 0.5, (rows, cols))
    step = -np.sign(error)
    sums = np.zeros((2, cols))
    chosen = _choose(error, step, direction, sums, weight)
    for col in range(cols):
        total = np.zeros(2)
        for row in range(rows):
            costs = []
            for change in (0.0, step[row, col]):
                off = error[row, col] + change
                costs.append(off**2 + weight * np.sum((total + direction[row] * off) ** 2))
            assert chosen[row, col] == (costs[1] < costs[0])
            total += direction[row] * (error[row, col] + chosen[row, col] * step[row, col])
        assert np.allclose(total, sums[:, col])


@pytest.mark.parametrize("kind", ["block", "mxfp4"])
def test_what_needs_no_rounding_is_left_alone(kind: str) -> None:
    """Directions that have nothing of the weights: all numbers stay on the grid, and none is moved."""
    storage = STORAGES[kind]()
    parts = source(storage)
    edited = BalancedTensor(source=storage, target=storage, map=Projection(np.zeros((WIDTH, 1))), along_rows=True)
    after, rounding = written(edited, parts)
    assert np.array_equal(numbers(storage, after), numbers(storage, parts))
    assert rounding.loss.error == 0


def test_where_vectors_are_rows_or_the_target_is_plain_rounding_is_to_nearest() -> None:
    storage = block_storage((40, WIDTH))
    parts = store(storage, np.random.default_rng(0).standard_normal((40, WIDTH)))
    for target, along_rows, map_ in (
        (storage, False, projection(WIDTH)),
        (Plain("w", "BF16", (40, WIDTH), 0), True, projection(40)),
        (storage, True, None),
    ):
        both = [
            kind(source=storage, target=target, map=map_, along_rows=along_rows)
            for kind in (EditedTensor, BalancedTensor)
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
