"""What a search can draw: every point of it is an edit, and the published ones are among them."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.random_models import random_model
from tests.helpers.search_places import LAYERS, WIDTH, places, with_som
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.plan.hooks import hooks_of
from weight_edit.runtime.forward import next_token_logprobs
from weight_edit.runtime.hooks import hooked
from weight_edit.search.places import Finding, Found, Places
from weight_edit.search.space import HERETIC, OneOf, Range, Space, Whole, published

KERNELS = {f"{role}.{name}" for role in ("attention", "mlp") for name in ("max", "position", "min", "width")}


def drawn(space: Space, seed: int) -> dict:
    """Values drawn at random, without a sampler."""
    generator = random.Random(seed)
    found = {}
    for name, each in space.parameters.items():
        if isinstance(each, OneOf):
            found[name] = generator.choice(each.options)
        elif isinstance(each, Whole):
            found[name] = generator.randint(each.low, each.high)
        else:
            found[name] = generator.uniform(each.low, each.high)
    return found


def test_what_has_one_value_only_is_not_drawn() -> None:
    assert set(Space(places=places()).parameters) == {"position", "layer", "embedding", *KERNELS}
    many = Space(places=with_som(), keep_norms=(False, True), directions=3)
    more = {"finder", "rows", "directions", "layer 2", "layer 3", "keep_norms"}
    assert set(many.parameters) == {"position", "layer", "embedding", *KERNELS, *more}


@pytest.mark.parametrize("seed", range(20))
def test_a_point_has_the_strengths_of_its_kernels_and_the_direction_of_its_place(seed: int) -> None:
    space = Space(places=places())
    params = drawn(space, seed)
    point = space.point(params)
    expected = [params["embedding"]]
    for layer in range(LAYERS):
        for role in ("attention", "mlp"):
            largest, share, at, width = (params[f"{role}.{name}"] for name in ("max", "min", "position", "width"))
            distance = abs(layer / (LAYERS - 1) - at) / width
            expected.append(largest * (1 + distance * (share - 1)) if distance <= 1 else 0.0)
    np.testing.assert_allclose(point.strengths.vector, expected, atol=1e-12)
    np.testing.assert_array_equal(
        point.rows, space.places.rows("mean-difference", [(params["position"], params["layer"])])
    )
    assert point.facts["params"] == params
    assert space.holds(params)


def test_finders_rows_and_several_places_are_drawn() -> None:
    space = Space(places=with_som(), directions=2)
    params = drawn(space, 1) | {"finder": "som", "rows": 2, "directions": 1}
    assert space.point(params).rows.shape == (2, WIDTH)
    two = params | {"finder": "mean-difference", "directions": 2, "layer": 2.5, "layer 2": 4.5}
    rows = space.point(two).rows
    assert rows.shape == (2, WIDTH)
    one = space.point(two | {"directions": 1}).rows
    np.testing.assert_allclose(rows[:1], one, atol=1e-7)


def test_a_value_that_is_missing_is_no_default() -> None:
    space = Space(places=places())
    params = drawn(space, 0)
    del params["mlp.max"]
    assert not space.holds(params)
    with pytest.raises(KeyError, match=r"mlp\.max"):
        space.point(params)


def test_values_out_of_range_and_of_no_parameter_are_not_held() -> None:
    space = Space(places=places())
    params = drawn(space, 0)
    assert space.holds(params)
    for other in ({"layer": 99.0}, {"embedding": 0.3}, {"keep_norms": True}, {"mlp.max": None}):
        assert not space.holds(params | other), other


def test_layers_reach_from_two_fifths_to_nine_tenths_behind_a_layer_and_to_the_choice() -> None:
    assert Space(places=places()).reach == (3.0, 5.0)
    assert Space(places=with_som()).reach == (2, 5.0)
    assert Space(places=places(), layers=(0.0, 3.0)).parameters["layer"] == Range(0.0, 3.0)


def test_the_default_kernels_hold_those_of_heretic_and_the_plain_ablation() -> None:
    space = Space(places=places())
    narrow = replace(space, attention=HERETIC, mlp=HERETIC)
    for name, bounds in narrow.parameters.items():
        if name in KERNELS:
            assert all(space.parameters[name].holds(value) for value in (bounds.low, bounds.high)), name
    full = published(space)[0].facts["params"]
    assert space.holds(full)
    assert not narrow.holds(full)


def test_it_survives_json() -> None:
    space = Space(places=with_som(), keep_norms=(False, True), directions=2, layers=(1.0, 4.0), mlp=HERETIC)
    after = Space.from_dict(json.loads(json.dumps(space.to_dict())))
    assert after.parameters == space.parameters
    assert after.to_dict() == space.to_dict()
    params = drawn(space, 3)
    assert after.point(params).digest == space.point(params).digest


@pytest.mark.parametrize("more", [{}, {"keep_norms": (False, True), "directions": 2}, {"mlp": HERETIC}])
def test_published_settings_begin_with_the_plain_ablation_and_have_names(more: dict) -> None:
    space = Space(places=with_som(), **more)
    points = published(space)
    origins = [each.origin for each in points]
    assert len(set(origins)) == len(points) >= 10
    assert all(each.startswith("published: ") for each in origins)
    assert len({each.digest for each in points}) == len(points)
    first = points[0]
    assert first.origin == "published: full ablation"
    assert first.strengths.vector.tolist() == [1.0] * (2 * LAYERS + 1)
    np.testing.assert_array_equal(first.rows, space.places.rows("mean-difference", [(-1, 3)]))
    assert points[1].strengths.vector.tolist() == [0.0] + [1.0] * (2 * LAYERS)
    assert points[-1].origin == "published: full ablation, som"
    assert len(points[-1].rows) == 3
    for each in points:
        assert space.point(each.facts["params"]).digest == each.digest


def test_a_sampler_can_be_told_of_all_that_is_published_but_kept_norms() -> None:
    space = Space(places=with_som())
    untold = [each.origin for each in published(space) if not space.holds(each.facts["params"])]
    assert untold == ["published: norms kept"]
    wider = replace(space, keep_norms=(False, True))
    assert all(wider.holds(each.facts["params"]) for each in published(wider))


def test_a_model_of_one_layer_can_be_searched() -> None:
    row = np.eye(1, WIDTH, dtype=np.float32)
    one = Finding(name="some", found=(Found(-1, 0, row),), chosen=0, between=False)
    space = Space(places=Places(n_layers=1, findings=(one,)))
    assert "layer" not in space.parameters
    for point in [space.point(drawn(space, 0)), *published(space)]:
        np.testing.assert_array_equal(point.rows, row)


def test_the_plain_ablation_is_that_of_find() -> None:
    model = random_model("llama")
    rows = orthonormal_rows(np.random.default_rng(0).standard_normal((1, 32))).astype(np.float32)
    found = Finding(name="some", found=(Found(-1, 1, rows),), chosen=0, between=False)
    point = published(Space(places=Places(n_layers=4, findings=(found,))))[0]
    prompts = [[5, 6, 7], [8, 9, 10, 11]]
    plain = next_token_logprobs(model, prompts)
    with hooked(model.model, hooks_of(model)(rows)):
        expected = next_token_logprobs(model, prompts)
    with hooked(model.model, point.variant(model).hooks):
        edited = next_token_logprobs(model, prompts)
    np.testing.assert_allclose(edited, expected, atol=1e-5)
    assert float((edited - plain).abs().max()) > 1e-3
