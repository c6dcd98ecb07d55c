"""Directions at places and between layers: the same as the finds', and the same bits everywhere."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.search_places import (
    LAYERS,
    WIDTH,
    directions,
    mean_differences,
    places,
    searched,
    several_rows,
    unit,
    with_som,
)
from weight_edit.directions.candidate import Candidate
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.errors import UnsupportedError
from weight_edit.search.places import Places, orthonormalised


def test_at_a_whole_layer_the_direction_is_the_finds_own() -> None:
    found = places()
    for candidate in mean_differences():
        if candidate.norm:
            row = found.rows("mean-difference", [(candidate.position, candidate.layer)])
            assert row.shape == (1, WIDTH)
            assert row.dtype == np.float32
            np.testing.assert_array_equal(row, orthonormal_rows(candidate.rows).astype(np.float32))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_between_layers_unit_vectors_are_averaged_whatever_their_lengths(share: float) -> None:
    between = (1 - share) * unit(102)[0] + share * unit(103)[0]
    row = places().rows("mean-difference", [(-1, 2 + share)])
    np.testing.assert_allclose(row[0], between / between.norm(), atol=1e-7)


def test_between_opposite_directions_the_nearer_one_is_taken() -> None:
    candidates = mean_differences()
    layer = next(n for n, each in enumerate(candidates) if (each.position, each.layer) == (-1, 3))
    turned = -candidates[layer - 1].vector
    candidates[layer] = replace(candidates[layer], rows=turned[None], vector=turned)
    found = Places.of({"some": (searched(candidates), directions(-1, 2))})
    row = found.rows("some", [(-1, 2.5)])
    assert np.isfinite(row).all()
    np.testing.assert_allclose(row[0], unit(102)[0], atol=1e-7)


def test_where_nothing_was_found_at_a_layer_the_nearest_of_the_position_is_taken() -> None:
    row = places().rows("mean-difference", [(-2, 0.3)])
    np.testing.assert_allclose(row[0], unit(201)[0], atol=1e-7)


def test_a_finder_with_several_rows_has_them_at_its_own_places_alone() -> None:
    found = with_som()
    assert [each.between for each in found.findings] == [True, False]
    whole = found.rows("som", [(-2, 4.7)])
    np.testing.assert_allclose(whole, orthonormal_rows(several_rows()[0].rows), atol=1e-6)
    np.testing.assert_array_equal(found.rows("som", [(-1, 2.0)], count=2), whole[:2])


def test_directions_at_several_places_are_orthonormal_and_span_them_all() -> None:
    found = places()
    rows = found.rows("mean-difference", [(-1, 2.5), (-1, 4.0), (-1, 4.0)]).astype(np.float64)
    assert len(rows) == 2
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-6)
    for layer in (2.5, 4.0):
        alone = found.rows("mean-difference", [(-1, layer)])[0].astype(np.float64)
        np.testing.assert_allclose(alone @ rows.T @ rows, alone, atol=1e-6)


def test_places_survive_json_to_the_bit() -> None:
    before = with_som()
    after = Places.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after.to_dict() == before.to_dict()
    for name, at in [("mean-difference", [(-1, 2.345), (-2, 1.5)]), ("som", [(-1, 1.0)])]:
        np.testing.assert_array_equal(after.rows(name, at), before.rows(name, at))


def test_only_what_is_within_reach_is_kept_and_the_choice() -> None:
    near = places().within(4.2, 4.8)
    (finding,) = near.findings
    assert {(each.position, each.layer) for each in finding.found} == {(-2, 4), (-2, 5), (-1, 3), (-1, 4), (-1, 5)}
    assert (finding.choice.position, finding.choice.layer) == (-1, 3)
    np.testing.assert_array_equal(
        near.rows("mean-difference", [(-1, 4.5)]), places().rows("mean-difference", [(-1, 4.5)])
    )


def test_candidates_without_a_direction_are_left_out() -> None:
    (finding,) = places().findings
    assert len(finding.found) == 2 * LAYERS - 1
    assert (finding.choice.position, finding.choice.layer) == (-1, 3)


def test_a_find_that_chose_nothing_of_these_is_refused() -> None:
    nothing = torch.zeros(1, WIDTH, dtype=torch.float64)
    empty = searched([Candidate(position=-1, layer=0, rows=nothing, vector=nothing[0])])
    with pytest.raises(UnsupportedError, match=r"^some: no candidate has a direction"):
        Places.of({"some": (empty, directions(-1, 0))})


def test_rows_are_orthonormalised_as_linear_algebra_has_it_whatever_their_lengths() -> None:
    rows = (unit(3, 4) * torch.tensor([[1e-3], [1.0], [50.0], [2.0]])).numpy()
    rows[3] = rows[1] + 0.01 * rows[3]
    np.testing.assert_allclose(orthonormalised(rows), orthonormal_rows(rows), atol=1e-9)


def test_a_direction_that_adds_nothing_or_is_nothing_is_left_out() -> None:
    rows = np.concatenate([unit(3, 2).numpy(), np.zeros((1, WIDTH)), -3 * unit(3, 2).numpy()])
    assert orthonormalised(rows).shape == (2, WIDTH)
