"""Which lengths an ablation may restore: those of a writer's columns. Restoring its rows' puts the direction back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.projection import ablation, orthonormal_rows

D, INPUTS = 96, 160


def ablated(seed: int, k: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A writer's matrix (out, in) that leans towards some directions, those, and the matrix with them ablated."""
    draw = np.random.default_rng(seed)
    rows = orthonormal_rows(draw.standard_normal((k, D)))
    weight = draw.standard_normal((D, INPUTS)) + 3 * rows.T @ draw.standard_normal((k, INPUTS))
    return weight, rows, weight - rows.T @ (rows @ weight)


def left(weight: np.ndarray, rows: np.ndarray, before: np.ndarray) -> float:
    return float(np.linalg.norm(rows @ weight) / np.linalg.norm(rows @ before))


@given(seed=st.integers(0, 1000), k=st.integers(1, 4))
def test_columns_keep_their_lengths_and_nothing_is_left(seed: int, k: int) -> None:
    weight, rows, _ = ablated(seed, k)
    edit = TensorEdit(ablation(rows), 0, keep_norms=True)
    edited = edit(torch.from_numpy(weight)).numpy()
    np.testing.assert_allclose(np.linalg.norm(edited, axis=0), np.linalg.norm(weight, axis=0), rtol=1e-12)
    assert left(edited, rows, weight) < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_rows_brought_back_to_their_lengths_put_the_direction_back(seed: int) -> None:
    weight, rows, gone = ablated(seed)
    lengths = np.linalg.norm(weight, axis=1, keepdims=True)
    units = weight / lengths
    # As other tools do it: each row made a unit, ablated, and given its length again.
    onto = units - rows.T @ (rows @ units)
    by_rows = onto / np.linalg.norm(onto, axis=1, keepdims=True) * lengths
    assert 0.005 < left(by_rows, rows, weight) < 0.5
    in_place = gone / np.linalg.norm(gone, axis=1, keepdims=True) * lengths
    assert 0.005 < left(in_place, rows, weight) < 0.5


def test_the_whole_matrix_brought_back_keeps_the_zero_but_not_the_columns() -> None:
    weight, rows, gone = ablated(0)
    whole = gone * np.linalg.norm(weight) / np.linalg.norm(gone)
    assert left(whole, rows, weight) < 1e-12
    gaps = np.abs(np.linalg.norm(whole, axis=0) / np.linalg.norm(weight, axis=0) - 1)
    assert gaps.max() > 0.05
