"""The scores of candidates equal those of the paper, computed literally prompt by prompt."""

import math

import pytest
import torch

from tests.helpers.direction_samples import problem_of
from tests.helpers.literal_scores import literal_scores
from weight_edit.directions.finders.mean_difference import MeanDifferenceOptions, mean_differences
from weight_edit.directions.scores import SCORES, CandidateScore, Scorer, score_of
from weight_edit.evaluation.kl import kl_divergence
from weight_edit.plan.hooks import ablation_hooks
from weight_edit.prompts.chat import ChatFormat


def scored(model, candidates, **given) -> list[CandidateScore]:
    scorer = Scorer(model, ablation_hooks=lambda rows: ablation_hooks(model, rows), **given)
    found: dict = {}
    asked = {number: candidate for number, candidate in enumerate(candidates) if candidate.norm}
    scorer.measure(asked, SCORES, found.__setitem__, what="candidates")
    assert list(found) == list(asked)
    return [score_of(candidate, found.get(number, {})) for number, candidate in enumerate(candidates)]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_scores_equal_the_papers_computed_literally(behaviour, family):
    found = behaviour(family)
    model, tokens = found.model, found.tokens
    chat_format = ChatFormat(model.tokenizer)
    target, held_target = ([chat_format.encode(p) for p in s.prompts] for s in found.target.split((20, 6)))
    baseline, held_baseline = ([chat_format.encode(p) for p in s.prompts] for s in found.baseline.split((20, 6)))
    positions = list(range(-len(chat_format.suffix), 0))
    candidates = mean_differences(problem_of(model, target, baseline, positions), MeanDifferenceOptions())
    scores = scored(model, candidates, target=held_target, baseline=held_baseline, tokens=tokens, batch_size=4)
    assert [(s.position, s.layer) for s in scores] == [(p, layer) for p in positions for layer in range(4)]
    compared = 0
    for score in scores:
        r = next(c.vector for c in candidates if (c.position, c.layer) == (score.position, score.layer)).float()
        assert score.norm == pytest.approx(float(r.norm()))
        if family == "llama" and score.layer == 0:
            # A template's token before any block is the same for all prompts.
            assert score.norm == 0
            assert (score.bypass, score.induce, score.kl) == (None, None, None)
            continue
        expected = literal_scores(
            model.model, r, layer=score.layer, target=held_target, baseline=held_baseline, tokens=tokens
        )
        assert (score.bypass, score.induce, score.kl) == pytest.approx(expected, abs=1e-4)
        compared += 1
    assert compared == (6 if family == "llama" else 8)
    assert max(score.kl for score in scores if score.norm) > 1e-3


def test_kl_divergence_against_hand_computed_values():
    base = torch.tensor([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]).log()
    other = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]).log()
    assert kl_divergence(base, other).tolist() == pytest.approx([0.5 * math.log(2), 0.0])
    assert kl_divergence(other, base)[0] == math.inf


def test_protected_prompts_are_measured_as_the_baseline_is(behaviour):
    found = behaviour("llama")
    chat_format = ChatFormat(found.model.tokenizer)
    target, baseline = ([chat_format.encode(p) for p in s.take(12).prompts] for s in (found.target, found.baseline))
    candidates = mean_differences(problem_of(found.model, target, baseline, [-1]), MeanDifferenceOptions())[1:]

    given = {"target": target, "baseline": baseline, "tokens": found.tokens}
    scores = scored(found.model, candidates, **given, protected=baseline)
    assert [score.protected_kl for score in scores] == pytest.approx([score.kl for score in scores], rel=1e-5)
    plain = scored(found.model, candidates, **given)
    assert {score.protected_kl for score in plain} == {None}


def test_scores_whose_prompts_are_all_used_up_are_left_out(behaviour):
    """Further prompts of one class may be there while none of the other are."""
    found = behaviour("llama")
    chat_format = ChatFormat(found.model.tokenizer)
    target, baseline = ([chat_format.encode(p) for p in s.take(12).prompts] for s in (found.target, found.baseline))
    candidates = mean_differences(problem_of(found.model, target, baseline, [-1]), MeanDifferenceOptions())[1:2]
    (with_all,) = scored(found.model, candidates, target=target, baseline=baseline, tokens=found.tokens)
    (score,) = scored(found.model, candidates, target=target, baseline=(), tokens=found.tokens)
    assert score.bypass == pytest.approx(with_all.bypass, rel=1e-4)
    assert (with_all.induce is None, score.induce, score.kl) == (False, None, None)
