"""The difference in means, its clipping, its projection and its several targets equal loops over single numbers."""

import math

import pytest
import torch
from torch import Tensor

from tests.helpers.direction_samples import problem_of, sample
from weight_edit.directions.finders.mean_difference import (
    MeanDifferenceOptions,
    clipped,
    mean_difference,
    mean_differences,
    off,
)
from weight_edit.directions.problem import Problem

Vector = list[float]
CLIP = 0.75


@pytest.fixture(scope="module")
def problem(small_model) -> Problem:
    """Two kinds of targets of different numbers, so that pooling them is not the mean of their differences."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(4, 44, (4,), generator=generator).tolist() for _ in range(18)]
    targets = (sample("target", prompts[:7]), sample("target", prompts[7:10]))
    return problem_of(small_model("llama"), (), prompts[10:], (-2, -1), targets=targets)


def literal_clip(vector: Vector, quantile: float) -> Vector:
    """Entries are cut at the smallest magnitude that at least a share `quantile` of all entries do not exceed."""
    magnitudes = sorted(abs(x) for x in vector)
    limit = next(m for m in magnitudes if sum(other <= m for other in magnitudes) >= quantile * len(magnitudes))
    return [math.copysign(min(abs(x), limit), x) for x in vector]


def literal_mean(vectors: list[Vector]) -> Vector:
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def literal_off(vector: Vector, along: Vector) -> Vector:
    share = sum(x * y for x, y in zip(vector, along, strict=True)) / sum(y * y for y in along)
    return [x - share * y for x, y in zip(vector, along, strict=True)]


def literal_difference(target: Tensor, baseline: Tensor, options: MeanDifferenceOptions) -> Vector:
    """What the options ask of the activations (prompts, d_model) at one place."""

    def mean(activations: Tensor) -> Vector:
        vectors = activations.double().tolist()
        return literal_mean(vectors if options.clip is None else [literal_clip(v, options.clip) for v in vectors])

    means = mean(target), mean(baseline)
    difference = [x - y for x, y in zip(*means, strict=True)]
    return literal_off(difference, means[1]) if options.off_baseline else difference


@pytest.mark.parametrize("clip", [None, CLIP])
@pytest.mark.parametrize("off_baseline", [False, True])
@pytest.mark.parametrize("each", [False, True])
def test_every_candidate_equals_loops(problem: Problem, clip: float | None, off_baseline: bool, each: bool) -> None:
    options = MeanDifferenceOptions(clip=clip, off_baseline=off_baseline, each=each)
    candidates = mean_differences(problem, options)
    assert [(c.position, c.layer) for c in candidates] == [(p, layer) for p in (-2, -1) for layer in range(4)]
    samples = [problem.of(target) for target in problem.targets]
    baseline = problem.of(problem.baseline)
    for candidate, (p, layer) in zip(candidates, problem.places, strict=True):
        there = [x[:, p, layer] for x in samples]
        pooled = literal_difference(torch.cat(there), baseline[:, p, layer], options)
        rows = [literal_difference(x, baseline[:, p, layer], options) for x in there] if each else [pooled]
        assert candidate.rows.shape == (len(rows), problem.width)
        assert candidate.vector.tolist() == pytest.approx(pooled, abs=1e-6)
        for row, expected in zip(candidate.rows.tolist(), rows, strict=True):
            assert row == pytest.approx(expected, abs=1e-6)
        assert max(map(abs, pooled)) > 1e-2


def test_nothing_is_left_along_what_is_taken_off() -> None:
    x, along = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left = off(x, 7 * along)
    for i in range(3):
        for j in range(5):
            assert left[i, j].tolist() == pytest.approx(literal_off(x[i, j].tolist(), along[i, j].tolist()))
    assert (left * along).sum(dim=-1).abs().max() < 1e-12
    assert torch.equal(off(x, torch.zeros_like(x)), x)


@pytest.mark.parametrize("quantile", [0.51, CLIP, 0.76, 1.0])
def test_each_vector_is_clipped_at_its_own_quantile(quantile: float) -> None:
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(2))
    found = clipped(x, quantile)
    for i in range(3):
        for j in range(5):
            assert found[i, j].tolist() == literal_clip(x[i, j].tolist(), quantile)
    assert torch.equal(found, x) == (quantile == 1.0)


def test_what_is_only_rounding_error_is_no_direction() -> None:
    target = torch.ones(2, 4, dtype=torch.float64)
    baseline = target + torch.tensor([[1e-9], [1e-3]], dtype=torch.float64)
    found = mean_difference(target, baseline)
    assert found[0].tolist() == [0.0] * 4
    assert found[1].tolist() == pytest.approx([-1e-3] * 4)
