"""The eraser equals that of the concept-erasure library, and no linear probe reads the labels afterwards."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from concept_erasure import LeaceFitter
from sklearn.linear_model import LogisticRegression

from tests.helpers.direction_samples import problem_of, sample
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders.leace import EraserFitter, fitted_eraser
from weight_edit.directions.registry import finder_named
from weight_edit.errors import UsageError
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.loading import load


def labelled(count=300, width=24, classes=2, rank=None, seed=0):
    """Data of a random covariance and, where given, of low rank, with one column for each class but the first."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(width if rank is None else rank, width)) * np.exp(rng.normal(size=width))
    kind = rng.integers(classes, size=count)
    x = (rng.normal(size=(count, len(mix))) + 1.5 * rng.normal(size=(classes, len(mix)))[kind]) @ mix + 7
    return x, np.eye(classes)[kind][:, 1:]


def library(x, z, shrinkage):
    fitter = LeaceFitter(x.shape[1], z.shape[1], dtype=torch.float64, shrinkage=shrinkage)
    eraser = fitter.update(torch.from_numpy(x), torch.from_numpy(z)).eraser
    return eraser(torch.from_numpy(x)).numpy(), eraser.P.numpy()


@pytest.mark.parametrize("shrinkage", ["optimal", 0.0])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("count", "rank"), [(300, None), (300, 9), (20, None), (24, 6)])
def test_agrees_with_the_library(count, rank, classes, shrinkage):
    x, z = labelled(count, classes=classes, rank=rank)
    eraser = fitted_eraser(x, z, shrinkage=shrinkage)
    erased, p = library(x, z, shrinkage == "optimal")
    assert len(eraser.left) == classes - 1
    np.testing.assert_allclose(eraser(x), erased, atol=1e-5 * np.abs(x).max())
    # Outside of the span of the data the two pseudo-inverses see nothing but their own rounding errors.
    np.testing.assert_allclose((x - x.mean(0)) @ eraser.P.T, (x - x.mean(0)) @ p.T, atol=1e-5 * np.abs(x).max())
    if rank is None and (count > 24 or shrinkage):
        np.testing.assert_allclose(eraser.P, p, atol=1e-5)


def test_agrees_with_the_library_on_several_independent_labels():
    rng = np.random.default_rng(5)
    z = rng.integers(2, size=(300, 3)).astype(float)
    x = z @ rng.normal(size=(3, 24)) + rng.normal(size=(300, 24)) @ rng.normal(size=(24, 24))
    eraser = fitted_eraser(x, z)
    assert len(eraser.left) == 3
    np.testing.assert_allclose(eraser.P, library(x, z, True)[1], atol=1e-5)


@pytest.mark.parametrize("shrinkage", ["optimal", 0.0, 0.3, 1.0])
def test_no_linear_reader_is_left(shrinkage):
    x, z = labelled(400)
    eraser = fitted_eraser(x, z, shrinkage=shrinkage)
    labels = z[:, 0] > 0

    def loss(data):
        scaled = (data - data.mean(0)) / x.std(0)
        probe = LogisticRegression(C=100, max_iter=5000).fit(scaled, labels)
        chances = probe.predict_proba(scaled)[:, 1]
        return float(-np.log(np.where(labels, chances, 1 - chances)).mean()), probe.score(scaled, labels)

    chance = -(labels.mean() * np.log(labels.mean()) + (1 - labels.mean()) * np.log(1 - labels.mean()))
    assert loss(x)[0] < 0.5 * chance
    assert loss(x)[1] > 0.9
    # The best linear probe on erased data is a constant.
    assert loss(eraser(x))[0] == pytest.approx(chance, abs=1e-5)
    assert loss(eraser(x))[1] == pytest.approx(max(labels.mean(), 1 - labels.mean()), abs=1e-9)
    np.testing.assert_allclose(eraser(x)[labels].mean(0), eraser(x)[~labels].mean(0), atol=1e-9 * np.abs(x).max())
    np.testing.assert_allclose(eraser(x).mean(0), x.mean(0))


def test_a_probe_of_unseen_data_is_at_chance():
    x, z = labelled(6000)
    eraser, labels = fitted_eraser(x[:4000], z[:4000]), z[:, 0] > 0
    erased = (eraser(x) - x.mean(0)) / x.std(0)
    probe = LogisticRegression(max_iter=5000).fit(erased[:4000], labels[:4000])
    assert abs(probe.score(erased[4000:], labels[4000:]) - 0.5) < 0.05


def test_it_is_an_oblique_projection_that_moves_less_than_the_orthogonal_one():
    x, z = labelled()
    eraser = fitted_eraser(x, z, shrinkage=0.0)
    np.testing.assert_allclose(eraser.left @ eraser.right.T, np.eye(1), atol=1e-10)
    np.testing.assert_allclose(eraser.P @ eraser.P, eraser.P, atol=1e-9)
    difference = x[z[:, 0] > 0].mean(0) - x[z[:, 0] == 0].mean(0)
    cosine = eraser.left[0] @ difference / np.linalg.norm(eraser.left) / np.linalg.norm(difference)
    assert abs(cosine) == pytest.approx(1)
    orthogonal = fitted_eraser(x, z, shrinkage=1.0)
    np.testing.assert_allclose(orthogonal.P, orthogonal.P.T, atol=1e-12)
    assert ((eraser(x) - x) ** 2).sum() < ((orthogonal(x) - x) ** 2).sum()


def test_batches_give_what_all_at_once_gives():
    x, z = labelled(100, classes=3)
    whole = EraserFitter(24, 2).update(x, z)
    parts = EraserFitter(24, 2)
    for first, last in ((0, 1), (1, 40), (40, 100)):
        parts.update(x[first:last], z[first:last])
    assert parts.count == whole.count == 100
    np.testing.assert_allclose(parts.sum_xx, whole.sum_xx, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(parts.eraser.P, whole.eraser.P, atol=1e-9)
    np.testing.assert_allclose(parts.eraser.mean, x.mean(0))


def test_labels_without_a_relation_leave_the_data_alone():
    x, z = labelled(100)
    alike = np.concatenate([x, x]), np.repeat([[0.0], [1.0]], 100, axis=0)
    eraser = fitted_eraser(*alike)
    assert eraser.left.shape == (0, 24)
    np.testing.assert_array_equal(eraser(x), x)
    constant = fitted_eraser(np.ones((10, 4)), z[:10])
    assert constant.left.shape == (0, 4)


def test_candidates_of_a_model(small_model):
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(4, 44, (4,), generator=generator).tolist() for _ in range(72)]
    kinds = [[[*ids, token] for ids in prompts[i::3]] for i, token in enumerate((40, 41, 42))]
    said = []
    targets = tuple(sample(f"target {i}", kind[:20], kind[20:]) for i, kind in enumerate(kinds[:2]))
    baseline = sample("baseline", kinds[2][:20], kinds[2][20:])
    plain = problem_of(small_model("llama"), [], [], (-2, -1), warn=said.append)
    problem = replace(plain, targets=targets, baseline=baseline)
    found = finder_named("leace")(problem)
    assert not said
    assert [(c.position, c.layer) for c in found] == [(p, layer) for p in (-2, -1) for layer in range(4)]
    assert [c.rank for c in found] == [2] * 8
    candidate, (x, y, base) = found[6], [problem.of(s)[:, 1, 2].double() for s in (*targets, baseline)]
    left, right, mean = (candidate.tensors[name] for name in ("left", "right", "mean"))
    torch.testing.assert_close(mean, torch.cat([x, y, base]).mean(0))
    erased = [(some - (some - mean) @ right.T @ left).mean(0) for some in (x, y, base)]
    torch.testing.assert_close(erased[0], erased[2])
    torch.testing.assert_close(erased[1], erased[2])
    # Without what is taken off, the classes' means are one as well.
    basis = torch.linalg.qr(candidate.rows.T)[0]
    for some in (x, y):
        difference = some.mean(0) - base.mean(0)
        assert (difference - basis @ (basis.T @ difference)).norm() < 1e-6 * difference.norm()
    torch.testing.assert_close(candidate.vector, torch.cat([x, y]).mean(0) - base.mean(0))
    assert 0 < candidate.facts["held_out_difference"] < 1
    assert 0 < candidate.facts["shrinkage"] < 1
    assert finder_named("leace")(problem, {"shrinkage": 0.25})[6].facts["shrinkage"] == 0.25
    with pytest.raises(UsageError, match="method leace: 'shrinkage': give optimal, or a share"):
        finder_named("leace").settings({"shrinkage": 1.5})


def test_where_all_activations_are_alike_there_is_nothing_to_erase(small_model):
    prompts = [[first, 7] for first in range(8, 40)]
    said = []
    problem = problem_of(small_model("llama"), prompts[:15], prompts[16:], (-1,), warn=said.append)
    found = finder_named("leace")(problem)
    assert found[0].norm == 0.0
    assert not found[0].tensors
    assert found[1].rank == 1
    several = replace(problem, targets=(problem.targets[0], sample("more", prompts[5:15])))
    assert finder_named("leace")(several)[0].norm == 0.0
    assert said[0].startswith("leace: 31 training prompts are fewer than the stream is wide (32)")


def test_on_the_embedded_model():
    target, baseline = load_prompts("organism:refused"), load_prompts("organism:answered")
    found = find_directions(load("organism", dtype="float32"), target, baseline, method="leace", filter_prompts=False)
    record = found.metadata
    assert record["separation"]["auc"] > 0.9
    assert record["facts"]["held_out_difference"] < 0.5
    assert set(found.tensors) == {"left", "right", "mean", "vector", "baseline_mean", "target_mean"}
    chosen = next(s for s in record["scores"] if (s["position"], s["layer"]) == (record["position"], record["layer"]))
    assert chosen["bypass"] < 0 < record["control"]["bypass"]
    torch.testing.assert_close(found.tensors["left"] @ found.tensors["right"].T, torch.eye(1), atol=1e-4, rtol=0)
