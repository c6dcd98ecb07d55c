"""Directions that one entry has most of: balanced by going one step to either side of the nearest number."""

import numpy as np
import pytest

from tests.helpers.quantiser_samples import NAMES, Sample
from tests.helpers.quantized_samples import Projection, mxfp4_storage, numbers, reader, store
from weight_edit.checkpoint.quantized import balanced
from weight_edit.checkpoint.quantized.balanced import BalancedTensor
from weight_edit.checkpoint.quantized.unsettled import Candidates, unsettled
from weight_edit.checkpoint.tensor.edited import Rounding, RoundingLoss

ROWS, GROUPS = 384, 6


def uneven(k: int) -> np.ndarray:
    """Orthonormal directions, each of which one entry has most of."""
    noise = np.random.default_rng(5).standard_normal((ROWS, k)) * 0.03
    noise[np.arange(k), np.arange(k)] = 1
    return np.linalg.qr(noise)[0]


def loss(k: int) -> RoundingLoss:
    storage = mxfp4_storage(1, ROWS, GROUPS)
    parts = store(storage, np.random.default_rng(6).standard_normal((1, ROWS, GROUPS * 32)))
    edit = BalancedTensor(source=storage, target=storage, map=Projection(uneven(k)), along_rows=True)
    rounding = Rounding(edit)
    for strip in edit.strips(reader(parts)):
        rounding.add(strip)
    return rounding.loss


@pytest.mark.parametrize("k", [1, 2])
def test_what_two_neighbours_cannot_settle_three_do(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    three = loss(k)
    monkeypatch.setattr(balanced, "unsettled", lambda right, gap, sums: np.zeros(gap.shape[1], np.bool_))
    two = loss(k)
    assert three.left < 0.006
    assert two.left > 2 * three.left
    assert three.error < 1.2 * two.error


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_next_to_each_other_on_the_grid(name: str) -> None:
    sample = Sample.of(name)
    storage = sample.storage()
    before = numbers(storage, sample.raw)[0]
    values = before + np.random.default_rng(3).uniform(-1, 1, before.shape) * np.abs(before).mean() / 3
    values[3] = before[3]
    strip = sample.strip(storage, 0, storage.rows)
    found = Candidates.of(storage, values, 0, strip)

    def stored(codes: np.ndarray) -> np.ndarray:
        storage.put_codes(codes, 0, strip)
        return storage.decode(strip, storage.rows, 0, storage.cols)

    nearest, lower, higher = stored(found.nearest), stored(found.lower), stored(found.higher)
    size = np.abs(before).max()
    assert np.allclose(nearest - values, found.error, atol=1e-5 * size)
    assert np.allclose(lower - nearest, found.down, atol=1e-5 * size)
    assert np.allclose(higher - nearest, found.up, atol=1e-5 * size)
    # Nothing lies between them: whoever asks beside the nearest one gets these.
    inside = (found.down < 0) & (found.up > 0)
    assert inside.mean() > 0.5
    for side, other in ((1, higher), (-1, lower)):
        asked = storage.neighbours(nearest + side * 1e-2 * np.where(side > 0, found.up, -found.down), 0, strip)
        outer = stored(asked.high if side > 0 else asked.low)
        assert np.allclose(outer[inside], other[inside], atol=1e-5 * size)


def test_unsettled_is_a_sum_above_the_steps_along_the_directions() -> None:
    right = np.full((4, 1), 0.5)
    gap = np.full((4, 3), 0.2, np.float32)
    assert unsettled(right, gap, np.array([0.0, 0.0099, 0.0101], np.float32)).tolist() == [False, False, True]
