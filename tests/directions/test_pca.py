"""Principal components equal those of scikit-learn on the same pairs or on both classes pooled."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tests.helpers.direction_samples import problem_of
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders.pca import components, paired, towards
from weight_edit.directions.registry import finder_named
from weight_edit.errors import UsageError
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.loading import load


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(4, 44, (4,), generator=generator).tolist() for _ in range(50)]


def problem_on(model, prompts, baseline=25, **changes):
    return problem_of(
        model, [[*p, 40] for p in prompts[:25]], [[*p, 41] for p in prompts[25:][:baseline]], (-2, -1), **changes
    )


def at(problem, place):
    return [x[:, place // 4, place % 4].double() for x in (problem.target(), problem.of(problem.baseline))]


def aligned(row, expected):
    return abs(float(row @ torch.as_tensor(expected))) / np.linalg.norm(expected)


def test_pairs_are_symmetrised_differences(small_model, prompts):
    said = []
    problem = problem_on(small_model("llama"), prompts, warn=said.append)
    found = finder_named("pca")(problem, {"components": 3})
    assert not said
    assert [(c.position, c.layer) for c in found] == [(p, layer) for p in (-2, -1) for layer in range(4)]
    for place in (1, 6):
        x, y = at(problem, place)
        # Each pair counted in both orders: what random signs come to.
        both = torch.cat([x - y, y - x])
        reference = PCA(3).fit(both.numpy())
        candidate = found[place]
        for row, expected in zip(candidate.rows, reference.components_, strict=True):
            assert aligned(row, expected) == pytest.approx(1, abs=1e-9)
        assert candidate.facts["explained_variance_ratio"] == pytest.approx(
            reference.explained_variance_ratio_.tolist()
        )
        difference = x.mean(0) - y.mean(0)
        assert (candidate.rows @ difference >= 0).all()
        torch.testing.assert_close(candidate.vector, candidate.rows.T @ candidate.rows @ difference)
        share = float(candidate.vector.norm() / difference.norm())
        assert candidate.facts["share_of_difference"] == pytest.approx(share)


def test_pooled_components_are_those_of_both_classes(small_model, prompts):
    problem = problem_on(small_model("llama"), prompts)
    found = finder_named("pca")(problem, {"of": "pooled", "components": 4, "order": "variance"})
    x, y = at(problem, 6)
    reference = PCA(4).fit(torch.cat([x, y]).numpy())
    for row, expected in zip(found[6].rows, reference.components_, strict=True):
        assert aligned(row, expected) == pytest.approx(1, abs=1e-9)
    ratios = found[6].facts["explained_variance_ratio"]
    assert ratios == pytest.approx(reference.explained_variance_ratio_.tolist())
    assert (found[6].rows @ (x.mean(0) - y.mean(0)) >= 0).all()


def test_components_can_be_ordered_by_separation(small_model, prompts):
    problem = problem_on(small_model("llama"), prompts)
    settings = {"of": "pooled", "components": 32}
    by_variance = finder_named("pca")(problem, {**settings, "order": "variance"})[3]
    by_separation = finder_named("pca")(problem, {**settings, "order": "separation"})[3]
    torch.testing.assert_close(by_separation.rows, finder_named("pca")(problem, settings)[3].rows)
    x, y = at(problem, 3)
    apart = (by_separation.rows @ (x.mean(0) - y.mean(0))).tolist()
    assert apart == sorted(apart, reverse=True)
    assert sorted(by_variance.facts["explained_variance_ratio"], reverse=True) == pytest.approx(
        by_variance.facts["explained_variance_ratio"]
    )
    first = finder_named("pca")(problem, {**settings, "order": "separation", "components": 1})[3]
    torch.testing.assert_close(first.rows, by_separation.rows[:1])
    assert first.facts["share_of_difference"] > 1 / 32**0.5
    assert by_separation.facts["share_of_difference"] == pytest.approx(1)


def test_of_a_larger_class_some_are_drawn():
    assert [index.tolist() for index in paired(4, 4, 0)] == [[0, 1, 2, 3]] * 2
    first, second = paired(3, 9, 0)
    assert first.tolist() == [0, 1, 2]
    assert len(set(second.tolist())) == 3
    assert torch.equal(second, paired(3, 9, 0)[1])
    assert not torch.equal(second, paired(3, 9, 1)[1])
    assert len(paired(9, 3, 0)[0]) == 3


def test_unequal_classes_on_a_model(small_model, prompts):
    model, said = small_model("llama"), []
    runs = [finder_named("pca")(problem_on(model, prompts, 6, seed=s, warn=said.append)) for s in (0, 0, 1)]
    assert torch.equal(runs[0][5].rows, runs[1][5].rows)
    assert not torch.equal(runs[0][5].rows, runs[2][5].rows)
    assert said[0].startswith("pca: 31 training prompts are fewer")


def test_signs_are_always_the_same():
    rows = torch.tensor([[0.6, 0.8, 0], [-0.8, 0.6, 0], [0, 0, -1]], dtype=torch.float64)
    turned = towards(rows, torch.tensor([-3.0, -4.0, 0], dtype=torch.float64))
    torch.testing.assert_close(turned, torch.tensor([[-0.6, -0.8, 0], [0.8, -0.6, 0], [0, 0, 1]], dtype=torch.float64))
    zero = towards(rows, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(zero, torch.tensor([[0.6, 0.8, 0], [0.8, -0.6, 0], [0, 0, 1]], dtype=torch.float64))


def test_rounding_errors_are_no_component():
    data = torch.diag(torch.tensor([3.0, 1e-8, 4.0], dtype=torch.float64))
    rows, shares = components(data, scale=10)
    assert rows.shape == (2, 3)
    assert shares.tolist() == pytest.approx([0.64, 0.36])
    assert components(torch.zeros(4, 3, dtype=torch.float64), scale=10)[0].shape == (0, 3)


@pytest.mark.parametrize("of", ["paired", "pooled"])
def test_where_all_activations_are_alike_there_is_no_direction(small_model, prompts, of):
    model = small_model("llama")
    same = [[*ids, 7] for ids in prompts]
    found = finder_named("pca")(problem_of(model, same[:25], same[25:], (-1,)), {"of": of})
    assert found[0].norm == 0.0
    assert found[1].norm > 0


def test_wrong_settings_are_named():
    with pytest.raises(UsageError, match=r"method pca: 'components'"):
        finder_named("pca").settings({"components": 0})
    with pytest.raises(UsageError, match=r"method pca: 'of'"):
        finder_named("pca").settings({"of": "all"})


@pytest.mark.parametrize("of", ["paired", "pooled"])
def test_on_the_embedded_model(of):
    target, baseline = load_prompts("organism:refused"), load_prompts("organism:answered")
    model = load("organism", dtype="float32")
    found = find_directions(model, target, baseline, method="pca", options={"of": of}, filter_prompts=False)
    record = found.metadata
    assert record["separation"]["auc"] > 0.9
    assert record["facts"]["share_of_difference"] > 0.8
    assert record["separation"]["target_projection"] > record["separation"]["baseline_projection"]
    chosen = next(s for s in record["scores"] if (s["position"], s["layer"]) == (record["position"], record["layer"]))
    assert chosen["bypass"] < 0 < record["control"]["bypass"]
