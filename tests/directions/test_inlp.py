"""Iterative nullspace projection equals the formulas of its paper and finds the separating subspace."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import minimize

from tests.helpers.direction_samples import problem_of
from weight_edit.directions.find import find_directions
from weight_edit.directions.finders.inlp import (
    InlpOptions,
    Nullspace,
    Stopping,
    balanced_accuracy,
    fit,
    held_out,
    inlp_directions,
    nullspace,
)
from weight_edit.directions.registry import finder_named
from weight_edit.directions.selection import SelectionRule
from weight_edit.errors import UsageError
from weight_edit.prompts.load import load_prompts
from weight_edit.runtime.loading import load

WIDTH, RANK = 20, 3
ENDLESS = Stopping(rounds=6, below=0.0, equal=None)


def concept(count, seed=0, width=WIDTH):
    """A class that shows along three known rows, with another spread along each, and nowhere else.

    Whatever lies elsewhere comes with both signs, so that the best classifier of this very sample lies in the span of
    the rows.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).normal(size=(width, width)))[0]
    labels = np.arange(count // 2) % 2 == 0
    shift = np.where(labels, 1, -1)[:, None] * [2.0, 1.5, 1.0]
    seen = (shift + rng.normal(size=(len(labels), RANK)) * [3.0, 0.6, 1.2]) @ basis[:RANK]
    elsewhere = rng.normal(size=(len(labels), width - RANK)) @ basis[RANK:]
    return np.concatenate([seen + elsewhere, seen - elsewhere]), np.tile(labels, 2), basis[:RANK]


def literal(x, labels, held_x, held_labels, rounds):
    """The paper's formulas in full width: L-BFGS, Q += w w^T, V a basis of its range, P = I - V V^T, retrain on P x."""
    signs, n, d = np.where(labels, 1.0, -1.0), *x.shape
    penalty = 1 / (2 * 0.1 * n)
    q, p, accuracies = np.zeros((d, d)), np.eye(d), []
    for _ in range(rounds):
        seen = x @ p

        def objective(w, seen=seen):
            margins = signs * (seen @ w)
            loss = np.logaddexp(0, -margins).mean() + penalty * w @ w
            return loss, -(signs / (1 + np.exp(margins))) @ seen / n + 2 * penalty * w

        options = {"gtol": 1e-10, "ftol": 1e-15, "maxiter": 5000, "maxfun": 20000}
        w = minimize(objective, np.zeros(d), jac=True, method="L-BFGS-B", options=options).x
        accuracies.append(float(((held_x @ p @ w > 0) == held_labels).mean()))
        w = w / np.linalg.norm(w)
        q += np.outer(w, w)
        values, vectors = np.linalg.eigh(q)
        v = vectors[:, values > 1e-6]
        p = np.eye(d) - v @ v.T
    return v.T, accuracies, p


def test_agrees_with_the_papers_formulas_and_finds_the_subspace():
    x, labels, basis = concept(1000)
    held_x, held_labels, _ = concept(2000, seed=1)
    found = nullspace(x, labels, held_x, held_labels)
    # Three directions carry the concept; the fourth's accuracy says that nothing is left, and it is kept.
    assert found.stopped == "accuracy below 0.55"
    assert len(found.directions) == RANK + 1
    expected, accuracies, p = literal(x, labels, held_x, held_labels, RANK)
    first = found.first(RANK)
    assert subspace_angles(first.T, expected.T).max() < 1e-2
    assert subspace_angles(first.T, basis.T).max() < 1e-2
    assert found.accuracies[:RANK] == pytest.approx(accuracies, abs=0.01)
    np.testing.assert_allclose(np.eye(WIDTH) - first.T @ first, p, atol=1e-2)
    for projected in (p, np.eye(WIDTH) - first.T @ first):
        assert balanced_accuracy(held_x @ projected @ fit(x @ projected, labels, 0.1), held_labels) < 0.55
    assert accuracies[0] > 0.95


@pytest.mark.parametrize("count", [24, 200])
def test_the_span_of_the_prompts_gives_what_full_width_gives(count):
    x, labels, _ = concept(count, width=60)
    x += 0.3 * np.random.default_rng(2).normal(size=x.shape)
    held_x, held_labels, _ = concept(1000, seed=1, width=60)
    found = nullspace(x, labels, held_x, held_labels, stopping=ENDLESS)
    expected, accuracies, _ = literal(x, labels, held_x, held_labels, 6)
    assert subspace_angles(found.directions.T, expected.T).max() < 1e-2
    assert found.accuracies == pytest.approx(accuracies, abs=0.011)
    np.testing.assert_allclose(found.directions @ found.directions.T, np.eye(6), atol=1e-12)


def test_each_direction_points_to_the_class_that_is_true():
    x, labels, _ = concept(200)
    found = nullspace(x, labels, x, labels, stopping=Stopping(rounds=2))
    assert ((x[labels].mean(0) - x[~labels].mean(0)) @ found.directions.T > 0).all()


@pytest.mark.parametrize(
    ("accuracies", "reason"),
    [
        ([0.9], ""),
        ([0.9, 0.55], ""),
        ([0.9, 0.5], "accuracy below 0.55"),
        ([0.9, 0.8, 0.8], ""),
        ([0.8, 0.8, 0.9, 0.8], ""),
        ([0.9, 0.8, 0.8, 0.8], "3 equal accuracies"),
        ([0.8, 0.81] * 49 + [0.8], ""),
        ([0.8, 0.81] * 50, "all rounds done"),
    ],
)
def test_stopping_rules(accuracies, reason):
    assert Stopping().reason(accuracies) == reason


def test_each_rule_stops_the_search():
    x, labels, _ = concept(200)
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(200, WIDTH))
    assert len(nullspace(x, labels, x, labels, stopping=Stopping(2, 0.0, None)).directions) == 2
    chance = nullspace(x, labels, noise, labels, stopping=Stopping(below=0.9))
    assert len(chance.directions) == 1
    perfect = np.repeat(np.where(labels, 1.0, -1.0)[:, None], 5, axis=1) + 1e-3 * noise[:, :5]
    plain = nullspace(perfect, labels, perfect, labels, stopping=Stopping(below=0.0, equal=None))
    assert plain.stopped == "nothing left"
    assert len(plain.directions) == 5
    equal = nullspace(x, labels, np.zeros((10, WIDTH)), labels[:10], stopping=Stopping(below=0.0))
    assert (equal.accuracies, equal.stopped) == ((0.5, 0.5, 0.5), "3 equal accuracies")


def test_all_or_the_first_or_the_accurate_are_kept():
    found = Nullspace(np.eye(4), (0.95, 0.7, 0.91, 0.5), "")
    assert found.first().shape == (4, 4)
    np.testing.assert_array_equal(found.first(2), np.eye(4)[:2])
    np.testing.assert_array_equal(found.first(accuracy=0.9), np.eye(4)[[0, 2]])
    np.testing.assert_array_equal(found.first(2, 0.9), np.eye(4)[:1])
    assert found.first(accuracy=0.99).shape == (0, 4)


def test_one_class_said_always_is_chance():
    labels = np.array([True] * 30 + [False] * 5)
    assert balanced_accuracy(np.ones(35), labels) == 0.5
    assert balanced_accuracy(np.where(labels, 1.0, -1.0), labels) == 1.0


def test_a_fifth_of_each_class_is_kept_back_by_the_seed():
    target, baseline = held_out((50, 8), 0)
    assert (int(target.sum()), int(baseline.sum())) == (10, 2)
    assert torch.equal(target, held_out((50, 8), 0)[0])
    assert not torch.equal(target, held_out((50, 8), 1)[0])


@pytest.fixture(scope="module")
def prompts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(4, 44, (4,), generator=generator).tolist() for _ in range(80)]


def candidates_of(model, prompts, options=None, **changes):
    target = [[*ids, 45] for ids in prompts[:40]]
    baseline = [[*ids, 46] for ids in prompts[40:]]
    problem = problem_of(model, target, baseline, (-2, -1), **changes)
    return finder_named("inlp")(problem, options or {}), problem


def test_candidates_of_a_model(small_model, prompts):
    model, said = small_model("llama"), []
    found, problem = candidates_of(model, prompts, warn=said.append, allowed=3)
    assert [(c.position, c.layer) for c in found] == [(p, layer) for p in (-2, -1) for layer in range(4)]
    assert not said
    difference = problem.target().double().mean(0) - problem.of(problem.baseline).double().mean(0)
    for candidate, (p, layer) in zip(found, problem.places, strict=True):
        torch.testing.assert_close(candidate.vector, difference[p, layer])
        if layer >= 3:
            assert candidate.norm == 0.0
            assert not candidate.facts
            continue
        rows = candidate.rows
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64))
        assert candidate.facts["kept"] == len(rows) == len(candidate.facts["accuracies"])
        assert candidate.facts["accuracy"] == candidate.facts["accuracies"][0]
    last = next(c for c in found if (c.position, c.layer) == (-1, 1))
    assert last.facts["accuracy"] == 1.0
    again, _ = candidates_of(model, prompts, allowed=3)
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(found, again, strict=True))
    other, _ = candidates_of(model, prompts, allowed=3, seed=1)
    assert not all(
        a.rows.shape == b.rows.shape and torch.equal(a.rows, b.rows) for a, b in zip(found, other, strict=True)
    )


def test_options_of_the_finder(small_model, prompts):
    model = small_model("llama")
    found, _ = candidates_of(model, prompts, {"rounds": 5, "stop_below": 0, "stop_equal": None, "keep": 2})
    # The embeddings of two tokens are all there is at the last position of layer 0.
    assert {(c.layer, len(c.facts["accuracies"])) for c in found if c.facts} == {
        *((0, 2), (0, 5), (1, 5), (2, 5), (3, 5))
    }
    assert all(c.facts["kept"] == len(c.rows) == 2 for c in found if c.facts)
    none, _ = candidates_of(model, prompts, {"keep_accuracy": 1.0, "rounds": 1})
    for candidate in none:
        if candidate.facts:
            assert (candidate.norm > 0) == (candidate.facts["accuracy"] == 1.0)
    for wrong in (0, "some", 1.5, True):
        with pytest.raises(UsageError, match="method inlp: 'keep': give all, or how many"):
            finder_named("inlp").settings({"keep": wrong})


def test_where_all_activations_are_alike_there_is_no_direction(small_model, prompts):
    same = [[*ids[:3], 7] for ids in prompts]
    problem = problem_of(small_model("llama"), same[:40], same[40:], (-1,))
    assert finder_named("inlp")(problem, {})[0].norm == 0.0


@pytest.mark.parametrize("method", ["inlp", "leace", "pca"])
def test_where_the_stream_overflows_there_is_no_direction(small_model, prompts, method):
    problem = problem_of(small_model("llama"), prompts[:40], prompts[40:], (-1,))
    problem.of(problem.baseline)[3, 0, 2, 5] = torch.inf
    found = finder_named(method)(problem, {})
    assert [candidate.norm > 0 for candidate in found] == [True, True, False, True]


def test_few_prompts_are_warned_of(small_model, prompts):
    said = []
    problem = problem_of(small_model("llama"), prompts[:9], prompts[40:49], (-1,), warn=said.append)
    finder_named("inlp")(problem, {})
    assert len(said) == 1
    assert said[0].startswith("inlp: 18 training prompts are fewer than the stream is wide (32)")


def test_on_the_embedded_model():
    target, baseline = load_prompts("organism:refused"), load_prompts("organism:answered")
    # Projecting moves answered prompts too, to the middle between the classes, so that KL is above the usual bound.
    rule = SelectionRule(max_kl=0.5)
    model = load("organism", dtype="float32")
    options = {"keep": 2}
    found = find_directions(model, target, baseline, method="inlp", options=options, filter_prompts=False, rule=rule)
    record = found.metadata
    assert record["rule"]["select"] == "accuracy"
    assert record["separation"]["auc"] > 0.9
    assert record["facts"]["accuracy"] > 0.9
    chosen = next(s for s in record["scores"] if (s["position"], s["layer"]) == (record["position"], record["layer"]))
    assert chosen["bypass"] < record["control"]["bypass"] - 4
    assert found.direction.shape[0] == record["facts"]["kept"] == 2
    assert {s["rejected"] for s in record["scores"] if s["layer"] == 5} == {"layer 5 above 3"}


@pytest.mark.parametrize("balanced", [True, False])
def test_the_fit_minimises_the_loss_of_its_weights(balanced):
    """The gradient of `c * sum of weighted losses + |w|^2 / 2` is zero, written out prompt by prompt."""
    generator = np.random.default_rng(5)
    labels = np.arange(40) < 8
    x = generator.standard_normal((40, 3)) + labels[:, None] * 0.7
    w = fit(x, labels, 0.1, balanced=balanced)
    gradient = w.copy()
    for row, label in zip(x, labels, strict=True):
        weight = 40 / (2 * (8 if label else 32)) if balanced else 1.0
        chance = 1 / (1 + math.exp(-float(row @ w)))
        gradient += 0.1 * weight * (chance - float(label)) * row
    assert np.abs(gradient).max() < 1e-6
    assert np.linalg.norm(w) > 0.05


def test_published_weights_of_unbalanced_classes(small_model, prompts):
    target, baseline = prompts[:15], prompts[15:]
    given = problem_of(small_model("llama"), target, baseline[: len(baseline) // 2], (-1,))
    assert len(given.of(given.baseline)) != len(given.target())
    found = {
        weights: inlp_directions(given, InlpOptions(weights=weights))[2] for weights in ("balanced", "none", "cut")
    }
    assert torch.equal(found["balanced"].rows, inlp_directions(given, InlpOptions())[2].rows)
    count = min(len(given.target()), len(given.of(given.baseline)))
    for weights in ("none", "cut"):
        classes = [given.target(), given.of(given.baseline)]
        classes = [x[:count] if weights == "cut" else x for x in classes]
        marks = held_out((len(classes[0]), len(classes[1])), given.seed)
        parts = [
            [x[:, 0, 2][mark].double().numpy() for x, mark in zip(classes, pair, strict=True)]
            for pair in ((~marks[0], ~marks[1]), marks)
        ]
        first = fit(
            np.concatenate(parts[0]), np.arange(sum(map(len, parts[0]))) < len(parts[0][0]), 0.1, balanced=False
        )
        assert found[weights].rows[0].numpy() == pytest.approx(first / np.linalg.norm(first), abs=1e-6)
        right = (parts[1][0] @ first > 0).sum() + (parts[1][1] @ first <= 0).sum()
        assert found[weights].facts["accuracy"] == pytest.approx(right / sum(map(len, parts[1])))
    assert not torch.allclose(found["balanced"].rows[0], found["none"].rows[0])
