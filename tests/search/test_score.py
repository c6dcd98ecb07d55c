"""The cheap score, its agreement with the gradient's own pass, and its slope against finite differences."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.helpers.random_texts import texts
from tests.helpers.small_families import FAMILIES, WHOLE, small
from weight_edit.edits.projection import orthonormal_rows
from weight_edit.runtime.hooks import hooked
from weight_edit.search.point import Point
from weight_edit.search.score import Score, Scorer
from weight_edit.search.strengths import Strengths
from weight_edit.search.trainable import TrainableEdit

SLOPED = ("llama", "gpt2", "gemma2", "phi", "gemma4_text", "deepseek_v3")
"""Tied and not, with norms behind writers and without, LayerNorm, parallel blocks, experts."""


def rows_of(model, count: int = 2) -> np.ndarray:
    drawn = torch.randn(count, model.anatomy.d_model, generator=torch.Generator().manual_seed(1))
    return orthonormal_rows(drawn).astype(np.float32)


def point_of(model, count: int = 2, low: float = 0.2, high: float = 1.6) -> Point:
    generator = torch.Generator().manual_seed(2)
    strengths = low + (high - low) * torch.rand(2 * model.anatomy.n_layers + 1, generator=generator)
    return Point(rows=rows_of(model, count), strengths=Strengths.from_vector(strengths.double().numpy()))


def trainable(model, point: Point) -> TrainableEdit:
    return TrainableEdit(
        model,
        torch.from_numpy(point.rows).float().requires_grad_(),
        torch.from_numpy(point.strengths.vector).float().requires_grad_(),
        embeddings=point.embeddings,
    )


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm()


def alone(model, prompt, said, hooks) -> torch.Tensor:
    """The logits that a text is predicted by, one prompt at a time, by transformers alone."""
    with torch.no_grad(), hooked(model.model, hooks):
        return model.model(torch.tensor([[*prompt, *said]])).logits[0, len(prompt) - 1 : -1].double()


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_a_score_is_what_each_text_gives_alone(family):
    model, given = small(family), texts()
    point = point_of(model)
    (score,) = Scorer(model, given, tokens=4).scores([point])
    hooks = point.variant(model).hooks

    def logprob(prompt, said) -> float:
        logprobs = alone(model, prompt, said, hooks).log_softmax(-1)
        return float(logprobs[range(len(said)), list(said)].sum())

    for found, choices in ((score.ratios, given.refused), (score.over_ratios, given.over_refused)):
        expected = [logprob(c.prompt, c.refusal[:4]) - logprob(c.prompt, c.answer[:4]) for c in choices]
        np.testing.assert_allclose(found, expected, atol=2e-3)
    expected = []
    for kept in given.ordinary:
        p, q = (alone(model, kept.prompt, kept.answer[:4], some).log_softmax(-1) for some in ((), hooks))
        expected.append(float((p.exp() * (p - q)).sum(-1).mean()))
    np.testing.assert_allclose(score.kl, expected, atol=1e-3)
    assert score.damage > 1e-4
    assert score.refusal == pytest.approx(float(torch.sigmoid(torch.from_numpy(score.ratios)).mean()))


def test_the_base_does_no_damage_and_some_prompts_score_as_all_do():
    model, given = small("llama"), texts()
    scorer = Scorer(model, given)
    nothing = Point(rows=rows_of(model), strengths=Strengths.flat(model.anatomy.n_layers, 0.0))
    point = point_of(model)
    base, whole = scorer.scores([nothing, point])
    assert base.damage == pytest.approx(0, abs=1e-6)
    (part,) = scorer.scores([point], refused=[2, 0], ordinary=[1], over_refused=[])
    np.testing.assert_allclose(part.ratios, whole.ratios[[2, 0]], atol=1e-4)
    np.testing.assert_allclose(part.kl, whole.kl[[1]], atol=1e-5)
    assert part.over_refusal is None
    assert whole.over_refusal is not None
    assert Score.from_dict(whole.to_dict()).objectives == whole.objectives


@pytest.mark.parametrize("family", [*FAMILIES, *WHOLE])
def test_a_trainable_edit_is_the_edit_of_its_point(family):
    model, given = small(family), texts()
    point = point_of(model)
    scorer = Scorer(model, given, tokens=5)
    (score,) = scorer.scores([point])
    edit = trainable(model, point)
    slope = scorer.gradient(edit, 2.0)
    assert slope.refusal == pytest.approx(score.refusal, abs=2e-3)
    assert slope.damage == pytest.approx(score.damage, abs=1e-3 + 2e-3 * score.damage)
    again = edit.point()
    np.testing.assert_allclose(again.rows, point.rows, atol=1e-6)
    np.testing.assert_allclose(again.strengths.vector, point.strengths.vector, atol=1e-6)


@pytest.mark.parametrize("family", SLOPED)
@pytest.mark.parametrize("count", [1, 3])
def test_the_slope_is_that_of_finite_differences(family, count):
    model = small(family)
    point = point_of(model, count)
    scorer = Scorer(model, texts(), tokens=5)
    found = scorer.gradient(trainable(model, point), 3.0)

    def loss(name: str, direction: torch.Tensor, step: float) -> float:
        edit = trainable(model, point)
        moved = {each: getattr(edit, each).detach() for each in ("rows", "strengths")}
        moved[name] = moved[name] + step * direction
        return scorer.gradient(TrainableEdit(model, moved["rows"], moved["strengths"].requires_grad_()), 3.0).loss

    def difference(name: str, direction: torch.Tensor) -> float:
        # Central differences, extrapolated from two steps, where two such estimates agree best (Ridders).
        steps = [0.08 / 2**number for number in range(7)]
        central = [(loss(name, direction, step) - loss(name, direction, -step)) / (2 * step) for step in steps]
        better = [(4 * narrow - wide) / 3 for wide, narrow in pairwise(central)]
        return min(pairwise(better), key=lambda both: abs(both[0] - both[1]))[1]

    generator = torch.Generator().manual_seed(4)
    for name, slope in (("strengths", found.strengths), ("rows", found.rows)):
        assert float(slope.norm()) > 0
        # Along the slope, where there is most to be told, and along two directions that have a part of it.
        for mixed in (0.0, 1.0, 1.0):
            direction = unit(slope) + mixed * unit(torch.randn(slope.shape, generator=generator))
            along = float((slope * direction).sum())
            assert along == pytest.approx(difference(name, direction), rel=1e-3), name


def test_memory_that_runs_out_halves_the_prompts_of_a_pass(monkeypatch):
    model, given = small("llama"), texts()
    scorer = Scorer(model, given)
    edit = trainable(model, point_of(model))
    whole = scorer.gradient(edit, 1.0)
    part, seen = Scorer._part, []

    def crowded(self, edit, items, *more):
        seen.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return part(self, edit, items, *more)

    monkeypatch.setattr(Scorer, "_part", crowded)
    halved = scorer.gradient(edit, 1.0)
    assert max(seen) > 2
    assert halved.loss == pytest.approx(whole.loss, rel=1e-4)
    torch.testing.assert_close(halved.strengths, whole.strengths, rtol=1e-3, atol=1e-5)


def test_the_answers_weight_adds_their_loss_per_token():
    model, given = small("llama"), texts()
    point = point_of(model)
    scorer = Scorer(model, given, tokens=4)
    without, weighted = (
        scorer.gradient(trainable(model, point), 1.0, over_refused=[], answer_weight=weight) for weight in (0.0, 2.0)
    )
    hooks = point.variant(model).hooks
    expected = []
    for choice in given.refused:
        said = choice.answer[:4]
        logprobs = alone(model, choice.prompt, said, hooks).log_softmax(-1)
        expected.append(-float(logprobs[range(len(said)), list(said)].mean()))
    assert len({len(choice.answer[:4]) for choice in given.refused}) > 1
    assert weighted.loss - without.loss == pytest.approx(2 * np.mean(expected), rel=1e-3)
    assert not torch.allclose(weighted.strengths, without.strengths)


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_a_sketch_reads_prompts_without_the_edit_and_scores_the_plain_model_alike(family):
    model, given = small(family), texts()
    scorer = Scorer(model, given, tokens=5)
    nothing = Point(rows=rows_of(model), strengths=Strengths.flat(model.anatomy.n_layers, 0.0))
    point = point_of(model)
    sketch = scorer.sketch(3)
    same, other = sketch.scores([nothing, point])
    whole, exact = Scorer(model, given, tokens=3).scores([nothing, point])
    np.testing.assert_allclose(same.ratios, whole.ratios, atol=1e-3)
    np.testing.assert_allclose(same.over_ratios, whole.over_ratios, atol=1e-3)
    assert same.damage == pytest.approx(0, abs=1e-6)
    # The edit acts on fewer tokens: on the last of the prompt and on those of the text.
    assert not np.allclose(other.ratios, exact.ratios, atol=1e-2)
    (again,) = sketch.scores([point], refused=[2], ordinary=[1], over_refused=[0])
    np.testing.assert_allclose(again.ratios, other.ratios[[2]], atol=1e-3)
    assert scorer.tokens == 5


def test_a_sketch_of_a_model_whose_cache_cannot_be_taken_apart_reads_prompts_under_the_edit():
    model, given = small("mamba"), texts()
    scorer, point = Scorer(model, given, tokens=5), point_of(small("mamba"))
    (sketch,), (exact,) = scorer.sketch(3).scores([point]), Scorer(model, given, tokens=3).scores([point])
    np.testing.assert_allclose(sketch.ratios, exact.ratios, atol=1e-3)
