"""What the table of `benchmarks/post_norm.py` says is what the theory says, and nothing is left of ours."""

import math

import pytest
from post_norm import BIASED, POST_NORM, SPREADS, Left, Row, biases, post_norm, table, wrong_axis

OURS = 1e-6


@pytest.mark.parametrize("model_type", POST_NORM)
@pytest.mark.parametrize("spread", SPREADS)
def test_ignoring_a_norm_leaves_the_sine_of_the_angle_that_its_gains_turn_by(model_type: str, spread: float) -> None:
    row = post_norm(model_type, spread, seeds=3)
    assert row.theory == pytest.approx(spread / math.sqrt(1 + spread**2), rel=0.15)
    assert row.naive.added == pytest.approx(row.theory, rel=0.25)
    assert row.naive.stream > 0.5 * row.naive.added
    assert max(row.ours.added, row.ours.stream) < OURS


@pytest.mark.parametrize("model_type", BIASED)
def test_ignoring_biases_leaves_what_they_write(model_type: str) -> None:
    row = biases(model_type, seeds=2)
    assert min(row.naive.added, row.naive.stream) > 0.1
    assert max(row.ours.added, row.ours.stream) < OURS


def test_a_square_matrix_edited_along_its_inputs_keeps_nearly_all() -> None:
    row = wrong_axis(seeds=2)
    assert row.naive.added > 0.5
    assert max(row.ours.added, row.ours.stream) < OURS


def test_the_table_is_markdown() -> None:
    lines = table([Row("Gemma 2", "norm", 0.287, Left(0.27, 0.3), Left(1e-7, 2e-7))]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1] == "| Gemma 2 | norm | 29% | 27% | 30% | 1e-07 | 2e-07 |"
