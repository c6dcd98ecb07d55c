"""The distance between trade-off curves, on curves drawn by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.studies.curves import curve_distance, draw_curves

CORNERS = [(0.0, 0.0), (0.5, 1.0), (1.0, 1.0)]
RATES = st.floats(0, 1, allow_subnormal=False)
CURVES = st.lists(st.tuples(RATES, RATES), min_size=1, max_size=5)


def rows(points):
    return [{"over": x, "refusal": y} for x, y in points]


def distance(first, second):
    return curve_distance(rows(first), rows(second), "over", "refusal")


def sampled(corners, count):
    """Points along a chain of straight lines, its corners among them."""
    at = np.union1d(np.linspace(0, len(corners) - 1, count), np.arange(len(corners)))
    return [tuple(np.interp(t, range(len(corners)), [c[axis] for c in corners]) for axis in (0, 1)) for t in at]


@given(CURVES, CURVES)
def test_it_is_symmetric_and_nothing_from_a_curve_to_itself(first, second):
    assert distance(first, first) == pytest.approx(0, abs=1e-12)
    assert distance(first, list(reversed(first))) == pytest.approx(0, abs=0.02)
    assert distance(first, second) == pytest.approx(distance(second, first), abs=1e-12)


@pytest.mark.parametrize("count", [4, 9, 40])
def test_the_strengths_at_which_a_curve_was_measured_do_not_matter(count):
    assert distance(CORNERS, sampled(CORNERS, count)) == pytest.approx(0, abs=5e-3)
    other = [(x, 0.8 * y) for x, y in CORNERS]
    assert distance(sampled(CORNERS, count), other) == pytest.approx(distance(CORNERS, other), abs=5e-3)


def test_parallel_lines_lie_apart_by_their_gap():
    first = [(0.0, 0.0), (1.0, 0.0)]
    assert distance(first, [(0.0, 0.25), (1.0, 0.25)]) == pytest.approx(0.25)
    # To a single point in the middle: from the point nothing, from the line a quarter of its length.
    assert distance(first, [(0.5, 0.0)]) == pytest.approx(0.125, abs=2e-3)


def test_a_figure_that_was_not_measured_gives_no_distance_and_no_drawing(tmp_path):
    assert curve_distance(rows(CORNERS), [{"over": 1.0}], "over", "refusal") is None
    draw_curves(tmp_path, "none", {"one": [{"over": 1.0}]}, "over", "refusal")
    assert not (tmp_path / "none.png").exists()


def test_many_curves_are_drawn_in_colours_of_their_own(tmp_path):
    from weight_edit.studies.tables import colour

    for count in (3, 10, 12, 20):
        assert len({colour(number, count) for number in range(count)}) == count
    points = {f"curve {n}": rows([(x, y * n / 12) for x, y in CORNERS]) for n in range(12)}
    draw_curves(tmp_path, "many", {**points, "random": rows(CORNERS[:1])}, "over", "refusal")
    assert (tmp_path / "many.png").read_bytes().startswith(b"\x89PNG")
    assert math.isfinite(distance(CORNERS, CORNERS[:1]))
