"""The front is what nothing dominates, and its hypervolume is what a grid of points counts."""

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weight_edit.search.front import FrontPoint, covering, dominates, front, hypervolume

CELLS = 8
"""Rates and damages of the samples are multiples of an eighth of their scale, so that counting cells is exact."""


def point(refusal, damage, over=None, digest=None):
    return FrontPoint(digest=digest or f"{refusal}{damage}{over}", refusal=refusal, damage=damage, over_refusal=over)


def damage_at(step):
    """The damage at a step of the logarithmic scale from 1e-4 to 1."""
    return 10 ** (-4 + 4 * step / CELLS)


def points_of(cells):
    return [point(cell[0] / CELLS, damage_at(cell[1]), *(each / CELLS for each in cell[2:])) for cell in cells]


def cells_of(count):
    return st.lists(st.tuples(*[st.integers(0, CELLS)] * count), max_size=12)


@settings(max_examples=100, deadline=None)
@given(cells_of(2))
def test_two_objectives_are_counted_cell_by_cell(cells):
    held = sum(any(a <= x and b <= y for a, b in cells) for x in range(CELLS) for y in range(CELLS))
    assert hypervolume(points_of(cells)) == pytest.approx(held / CELLS**2, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cells_of(3))
def test_three_objectives_are_counted_cell_by_cell(cells):
    grid = [(x, y, z) for x in range(CELLS) for y in range(CELLS) for z in range(CELLS)]
    held = sum(any(all(a <= b for a, b in zip(cell, at, strict=True)) for cell in cells) for at in grid)
    assert hypervolume(points_of(cells)) == pytest.approx(held / CELLS**3, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(cells_of(3))
def test_the_front_is_what_nothing_dominates_and_holds_the_whole_volume(cells):
    points = points_of(cells)
    found = front(points)
    assert {each.objectives for each in found} == {
        each.objectives for each in points if not any(dominates(other.objectives, each.objectives) for other in points)
    }
    assert len({each.objectives for each in found}) == len(found)
    assert [each.damage for each in found] == sorted(each.damage for each in found)
    assert hypervolume(found) == pytest.approx(hypervolume(points), abs=1e-12)


def test_the_ideal_point_has_all_and_the_reference_nothing():
    assert hypervolume([point(0.0, 0.0)]) == 1
    assert hypervolume([point(0.0, 1e-4, 0.0)]) == pytest.approx(1)
    assert hypervolume([point(1.0, 0.0), point(0.0, 1.0), point(0.0, 5.0)]) == 0
    assert hypervolume([]) == 0


def test_damage_counts_by_its_logarithm_from_the_reference_down():
    assert hypervolume([point(0.5, 0.01)]) == pytest.approx(0.5 * 0.5)
    assert hypervolume([point(0.25, 0.01)], (0.5, 0.1), least_damage=1e-3) == pytest.approx(0.5 * 0.5)


def test_a_reference_has_all_objectives():
    with pytest.raises(ValueError, match="reference of 2"):
        hypervolume([point(0.5, 0.1, 0.2)], (1.0, 1.0))
    with pytest.raises(ValueError, match="least damage"):
        hypervolume([point(0.5, 0.1)], (1.0, 1e-4))


def test_of_equal_points_the_first_digest_is_kept():
    found = front([point(0.5, 0.1, digest="b"), point(0.5, 0.1, digest="a"), point(0.5, 0.2, digest="0")])
    assert [each.digest for each in found] == ["a"]


def test_points_measured_by_other_objectives_are_not_compared():
    mixed = [point(0.5, 0.1), point(0.5, 0.1, 0.2)]
    for ask in (front, hypervolume):
        with pytest.raises(ValueError, match="some points only"):
            ask(mixed)


@pytest.mark.parametrize(("refusal", "damage"), [(1.1, 0.1), (-0.1, 0.1), (0.5, math.inf), (math.nan, 1)])
def test_figures_that_are_none_are_refused(refusal, damage):
    with pytest.raises(ValueError, match="a point with refusal"):
        point(refusal, damage)


def test_a_point_is_written_and_read_as_it_is():
    made = FrontPoint(digest="ab", refusal=0.1, damage=0.2, over_refusal=0.3, interval=(0.0, 0.4))
    assert FrontPoint.from_dict(made.to_dict()) == made


@settings(max_examples=60, deadline=None)
@given(cells_of(2), st.integers(1, 5))
def test_a_few_points_cover_much_of_what_all_do(cells, most):
    """The greedy choice keeps 1 - 1/e of the best one, and each of its points adds to the volume."""
    points = front(points_of(cells))
    chosen = covering(points, most)
    assert len(chosen) <= most
    volumes = [hypervolume(chosen[:count]) for count in range(len(chosen) + 1)]
    assert volumes == sorted(set(volumes))
    best = max((hypervolume(some) for some in combinations(points, min(most, len(points)))), default=0.0)
    assert volumes[-1] >= (1 - 1 / math.e) * best - 1e-9
    if most >= len(points):
        assert volumes[-1] == pytest.approx(hypervolume(points))


def test_what_adds_nothing_to_what_is_given_is_not_chosen():
    good, better, apart = point(0.5, 0.1, digest="a"), point(0.4, 0.05, digest="b"), point(0.1, 0.5, digest="c")
    assert covering([good, better, apart], 3) == [better, apart]
    assert covering([good, better, apart], 3, given=[better]) == [apart]
    assert covering([good], 3, given=[better]) == []
